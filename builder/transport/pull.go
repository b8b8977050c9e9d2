package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
)

// Pull makes sure that the store has what name means, as the policy says,
// and returns it. name may carry a transport ("docker://name",
// "oci:dir[:tag]", "oci-archive:file[:tag]", "docker-archive:file[:name]",
// "dir:dir", "containers-storage:name"); an image of a file is always read,
// whatever the policy. An image pulled from a registry gets its full name, as
// podman gives it; one from a file gets the name that the file gives it.
//
// A registry that has the image for other platforms only is define.ErrNotFound
// when it has a list of them; a single image of another platform is taken,
// with a warning, since the reference can mean nothing else.
func (c *Client) Pull(ctx context.Context, name string, p define.Platform, policy define.PullPolicy) (Local, error) {
	kind, rest := splitKind(name)
	if slices.Contains(foreign, kind) {
		return Local{}, fmt.Errorf("image %s: the transport %s: %w; use docker://, oci:, oci-archive:, docker-archive: or dir:", show(name), kind, define.ErrUnsupported)
	}
	switch kind {
	case kindStorage:
		return c.FindLocal(name, p)
	case "":
	case kindDocker:
		name = dockerName(rest)
	default:
		return c.pullFile(ctx, kind, rest, name, p)
	}
	if policy == define.PullNever {
		l, err := c.FindLocal(name, p)
		if errors.Is(err, define.ErrNotFound) {
			err = fmt.Errorf("%w (and the pull policy is never)", err)
		}
		return l, err
	}
	done, err := c.turn(ctx, name+" "+define.FormatPlatform(p))
	if err != nil {
		return Local{}, err
	}
	defer done()

	local, rec, err := c.find(name, wanted{Platform: p})
	var other *otherPlatform
	switch {
	case err == nil && policy == define.PullMissing:
		return local, nil
	case errors.As(err, &other):
		local, rec = other.local, nil
	case err != nil && !errors.Is(err, define.ErrNotFound):
		return Local{}, err
	case err != nil && kind == "" && isLocalOnly(name):
		return Local{}, err
	}
	pulled, pullErr := c.pullNamed(ctx, name, p, policy, local, rec)
	if pullErr == nil {
		return pulled, nil
	}
	if other != nil && other.usable && ctx.Err() == nil {
		c.warn(fmt.Sprintf("using %s for %s, because the one for %s could not be pulled: %v", name, other.have, other.want, pullErr))
		return local, nil
	}
	if other != nil {
		return Local{}, fmt.Errorf("%w (%w)", pullErr, &plainError{other.sentence(), other})
	}
	if err == nil && policy == define.PullNewer && ctx.Err() == nil {
		c.warn(fmt.Sprintf("using the image of the store, because a newer one could not be looked for: %v", pullErr))
		return local, nil
	}
	return Local{}, pullErr
}

// isLocalOnly reports whether no registry can have the image: localhost/
// without a port is where images built here live, and IDs are of the store.
func isLocalOnly(name string) bool {
	return strings.HasPrefix(name, "localhost/") || strings.HasPrefix(name, "sha256:") || isID(name) && len(name) == 64
}

// pullNamed tries the full names that a name may mean. local is what the
// store has, for the policy newer.
func (c *Client) pullNamed(ctx context.Context, name string, p define.Platform, policy define.PullPolicy, local Local, rec *storage.Image) (Local, error) {
	sys, err := c.system(p)
	if err != nil {
		return Local{}, err
	}
	m, err := c.resolve(sys, name)
	if err == nil {
		err = oneCandidate(sys, name, m.names)
	}
	if err != nil {
		return Local{}, err
	}
	if m.why != "" {
		c.note(fmt.Sprintf("%s is looked for as %s (%s)", name, m.names[0], m.why))
	}
	var errs []error
	for _, named := range m.names {
		l, err := c.pullOne(ctx, sys, named, p, policy, local, rec)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return Local{}, errs[0]
	}
	return Local{}, joinLine(errs)
}

// joinLine is errors.Join on one line.
func joinLine(errs []error) error {
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// pullOne fetches one full name.
func (c *Client) pullOne(ctx context.Context, sys *types.SystemContext, named reference.Named, p define.Platform, policy define.PullPolicy, local Local, rec *storage.Image) (Local, error) {
	src, err := remoteReference(named)
	if err != nil {
		return Local{}, err
	}
	if sys, err = c.reach(ctx, sys, src); err != nil {
		return Local{}, err
	}
	named = src.DockerReference()
	if policy == define.PullNewer && rec != nil && slices.Contains(rec.Names, named.String()) {
		remote, err := c.remoteDigest(ctx, sys, named.String(), src)
		if err != nil {
			return Local{}, err
		}
		if slices.Contains(rec.Digests, remote) {
			return local, nil
		}
	}
	dst, err := imagestorage.Transport.NewStoreReference(c.raw(), named, "")
	if err != nil {
		return Local{}, fmt.Errorf("image %s: %w", show(named.String()), plain(err))
	}
	id, err := c.pullTo(ctx, sys, named.String(), src, dst)
	if err != nil {
		return Local{}, err
	}
	c.warnPlatform(named.String(), id, p)
	return Local{ID: id, Name: named.String()}, nil
}

func (c *Client) remoteDigest(ctx context.Context, sys *types.SystemContext, name string, src types.ImageReference) (digest.Digest, error) {
	var d digest.Digest
	err := c.retry(ctx, "asking for "+name, func() (err error) {
		d, err = docker.GetDigest(ctx, sys, src)
		return err
	})
	if err != nil {
		return "", c.explainCopy(ctx, transfer{action: "pull", name: name, src: src}, hostOf(src), err)
	}
	return d, nil
}

// pullTo copies into the store and returns the image's ID.
func (c *Client) pullTo(ctx context.Context, sys *types.SystemContext, name string, src, dst types.ImageReference) (define.ImageID, error) {
	var resolved types.ImageReference
	opts := &copy.Options{SourceCtx: sys, DestinationCtx: sys, RemoveSignatures: c.o.RemoveSignatures, ReportResolvedReference: &resolved}
	if c.o.Decryption != nil {
		opts.OciDecryptConfig = c.o.Decryption.config
	}
	_, err := c.copy(ctx, transfer{action: "pull", name: name, src: src, dst: dst, opts: opts})
	if err != nil {
		return "", err
	}
	_, rec, err := imagestorage.ResolveReference(resolved)
	if err != nil {
		return "", fmt.Errorf("pull of %s: reading it from the store: %w", name, plain(err))
	}
	return define.ImageID(rec.ID), nil
}

// warnPlatform says when an image that is not a list turned out to be of
// another platform.
func (c *Client) warnPlatform(name string, id define.ImageID, p define.Platform) {
	if p.OS == "" && p.Architecture == "" {
		return
	}
	img, err := image.Load(c.st, id)
	if err != nil || covers(p, img.Platform) {
		return
	}
	c.warn(fmt.Sprintf("%s is for %s only, and %s was wanted", name, define.FormatPlatform(define.NormalizePlatform(img.Platform)), define.FormatPlatform(p)))
}
