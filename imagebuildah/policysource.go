package imagebuildah

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/sourcepolicy"
	"go.podman.io/image/v5/docker/reference"
)

// Attributes of sources, as BuildKit's rules name them.
const (
	attrHTTPChecksum = "http.checksum"
	attrGitURL       = "git.fullurl"
	attrGitChecksum  = "git.checksum"
)

const (
	schemeImage  = "docker-image://"
	schemeLayout = "oci-layout://"
	schemeGit    = "git://"
)

// allowedImage is what the source policy makes of an image's name. It judges
// the name as BuildKit writes it, with docker.io and latest filled in; names
// with a transport of files are judged as they are.
func (o *Options) allowedImage(name string) (string, error) {
	if o.SourcePolicy == nil || name == "scratch" {
		return name, nil
	}
	id := name
	bare := strings.TrimPrefix(name, "docker://")
	switch dir, layout := strings.CutPrefix(name, "oci:"); {
	case layout:
		id = schemeLayout + dir
	case bare != name || !transport.IsTransport(name):
		id = schemeImage + bare
		if named, err := reference.ParseNormalizedNamed(bare); err == nil {
			id = schemeImage + reference.TagNameOnly(named).String()
		}
	}
	got, err := o.SourcePolicy.Evaluate(sourcepolicy.Source{Identifier: id})
	if err != nil || got.Identifier == id {
		return name, err
	}
	if ref, ok := strings.CutPrefix(got.Identifier, schemeImage); ok {
		return ref, nil
	}
	if dir, ok := strings.CutPrefix(got.Identifier, schemeLayout); ok {
		return ociLayout(dir)
	}
	return "", converted(id, got.Identifier)
}

func converted(from, to string) error {
	return fmt.Errorf("source %s: the source policy converts it to %s, which is of another kind: %w", from, to, define.ErrUnsupported)
}

// allowedURL is what the source policy makes of a URL of files, a download or
// a git repository, and the digest that it wants of a download.
func (o *Options) allowedURL(address, checksum string) (allowed, sum string, err error) {
	if o.SourcePolicy == nil {
		return address, checksum, nil
	}
	if isGit(address) || buildcontext.IsGitURL(address) {
		allowed, err = o.allowedGit(address)
		return allowed, checksum, err
	}
	s := sourcepolicy.Source{Identifier: address, Attrs: map[string]string{}}
	if checksum != "" {
		s.Attrs[attrHTTPChecksum] = checksum
	}
	got, err := o.SourcePolicy.Evaluate(s)
	if err != nil {
		return "", "", err
	}
	if !isHTTP(got.Identifier) {
		return "", "", converted(define.RedactURLs(address), got.Identifier)
	}
	return got.Identifier, got.Attrs[attrHTTPChecksum], nil
}

// allowedGit judges a repository as git://HOST/PATH with the fragment that it
// has; the URL that is fetched is an attribute.
func (o *Options) allowedGit(address string) (string, error) {
	g, err := buildcontext.ParseGitURL(address)
	if err != nil {
		return "", err
	}
	_, fragment, _ := strings.Cut(address, "#")
	full, _, _ := strings.Cut(address, "#")
	id := schemeGit + gitPlace(g.Remote)
	if fragment != "" {
		id += "#" + fragment
	}
	s := sourcepolicy.Source{Identifier: id, Attrs: map[string]string{attrGitURL: full}}
	if g.Checksum != "" {
		s.Attrs[attrGitChecksum] = g.Checksum
	}
	got, err := o.SourcePolicy.Evaluate(s)
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(got.Identifier, schemeGit)
	if !ok {
		return "", converted(id, got.Identifier)
	}
	place, fragment, _ := strings.Cut(rest, "#")
	remote := got.Attrs[attrGitURL]
	if remote == full && got.Identifier != id && place != gitPlace(g.Remote) {
		remote = "https://" + place
	}
	if sum := got.Attrs[attrGitChecksum]; sum != "" && sum != g.Checksum {
		remote = withQuery(remote, "checksum", sum)
	}
	if remote == full && got.Identifier == id {
		return address, nil
	}
	if fragment != "" {
		remote += "#" + fragment
	}
	return remote, nil
}

func withQuery(address, key, value string) string {
	mark := "?"
	if strings.Contains(address, "?") {
		mark = "&"
	}
	return address + mark + key + "=" + url.QueryEscape(value)
}

// gitPlace is a remote's host and path, without scheme and user.
func gitPlace(remote string) string {
	if u, err := url.Parse(remote); err == nil && u.Scheme != "" {
		return u.Host + path.Join("/", u.Path)
	}
	_, rest, ok := strings.Cut(remote, "@")
	if !ok {
		rest = remote
	}
	host, file, ok := strings.Cut(rest, ":")
	if !ok {
		return rest
	}
	return host + path.Join("/", file)
}

// allowedAdd is an ADD with the sources that the policy allows.
func (o *Options) allowedAdd(cmd *instructions.AddCommand) (*instructions.AddCommand, error) {
	if o.SourcePolicy == nil {
		return cmd, nil
	}
	c := *cmd
	c.SourcePaths = append([]string(nil), cmd.SourcePaths...)
	for i, p := range c.SourcePaths {
		if !isHTTP(p) && !isGit(p) {
			continue
		}
		allowed, sum, err := o.allowedURL(p, c.Checksum)
		if err != nil {
			return nil, err
		}
		if c.SourcePaths[i] = allowed; isHTTP(allowed) {
			c.Checksum = sum
		}
	}
	return &c, nil
}

// allowedContexts judges the contexts that are fetched; images among the
// further ones are judged when they are used.
func (o *Options) allowedContexts() (err error) {
	if o.SourcePolicy == nil {
		return nil
	}
	if o.Context.Location, err = o.allowedContext(o.Context.Location); err != nil {
		return err
	}
	contexts := make(map[string]string, len(o.BuildContexts))
	for name, value := range o.BuildContexts {
		if contexts[name], err = o.allowedContext(value); err != nil {
			return fmt.Errorf("--build-context %s: %w", name, err)
		}
	}
	o.BuildContexts = contexts
	return nil
}

// allowedContext judges a context that is fetched.
func (o *Options) allowedContext(location string) (string, error) {
	if info, err := os.Stat(location); err == nil && info.IsDir() || !isHTTP(location) && !buildcontext.IsGitURL(location) {
		return location, nil
	}
	allowed, sum, err := o.allowedURL(location, "")
	if err == nil && sum != "" && isHTTP(allowed) {
		err = fmt.Errorf("context %s: the source policy wants a digest of it, which is for ADD only: %w", define.RedactURLs(location), define.ErrUnsupported)
	}
	return allowed, err
}
