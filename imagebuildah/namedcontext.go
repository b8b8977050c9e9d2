package imagebuildah

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// CheckBuildContext refuses a further context (--build-context name=value)
// whose name or value is malformed. The value is
//
//	docker-image://NAME  an image; also container-image:// and docker://
//	oci-layout://DIR     an image of an OCI layout: DIR, DIR:TAG or DIR@DIGEST
//	git or http(s) URL   a repository or a tar archive, as for the context
//	DIR                  a directory, with an ignore file of its own
//
// What does not exist is an error when it is used.
func CheckBuildContext(name, value string) error {
	switch {
	case name == "" || strings.ContainsAny(name, " \t\r\n\x00="):
		return fmt.Errorf("build context %q: want name=value: %w", name, define.ErrInvalid)
	case value == "":
		return fmt.Errorf("build context %s: the value is empty; want a directory, a URL, docker-image://NAME or oci-layout://DIR: %w", name, define.ErrInvalid)
	case value == "-":
		return fmt.Errorf("build context %s: standard input is for the main context: %w", name, define.ErrInvalid)
	}
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		return nil
	}
	switch scheme {
	case "docker-image", "container-image", "docker", "oci-layout":
		if rest == "" {
			return fmt.Errorf("build context %s=%s: nothing is named: %w", name, value, define.ErrInvalid)
		}
	case "http", "https", "git", "ssh":
	default:
		return fmt.Errorf("build context %s: %s:// is not known; want docker-image://, oci-layout://, https://, git:// or a directory: %w", name, scheme, define.ErrInvalid)
	}
	return nil
}

// namedContext is a further context, opened when something first wants it.
type namedContext struct {
	name, value string
	options     buildcontext.Options // the main context's

	once  sync.Once
	files *buildcontext.Context
	err   error
}

// namedContexts are the further contexts of a build, by their familiar name.
type namedContexts map[string]*namedContext

func newNamedContexts(o *Options) namedContexts {
	n := make(namedContexts, len(o.BuildContexts))
	for name, value := range o.BuildContexts {
		n[familiarName(name)] = &namedContext{name: name, value: value, options: o.Context}
	}
	return n
}

// familiarName writes an image's name as briefly as it can be, so that each
// spelling of a name means the same context.
func familiarName(name string) string {
	name = strings.ToLower(name)
	if s, ok := strings.CutPrefix(name, "docker.io/"); ok {
		name = strings.TrimPrefix(s, "library/")
	}
	return strings.TrimSuffix(name, ":latest")
}

// names are the names as a build file may write them.
func (n namedContexts) names() []string {
	var names []string
	for familiar, c := range n {
		names = append(names, familiar, c.name)
	}
	slices.Sort(names)
	return names
}

func (n namedContexts) find(name string) (*namedContext, bool) {
	if len(n) == 0 || name == "" {
		return nil, false
	}
	c, ok := n[familiarName(name)]
	return c, ok
}

// sorted are the contexts by name.
func (n namedContexts) sorted() []*namedContext {
	list := slices.Collect(maps.Values(n))
	slices.SortFunc(list, func(a, b *namedContext) int { return strings.Compare(a.name, b.name) })
	return list
}

// close removes what was unpacked.
func (n namedContexts) close() {
	for _, c := range n {
		if c.files != nil {
			_ = c.files.Close() // temporary files; the next sweep finds what is left
		}
	}
}

// image is the image that the context is, in the form of FROM.
func (c *namedContext) image() (name string, ok bool, err error) {
	scheme, rest, _ := strings.Cut(c.value, "://")
	switch scheme {
	case "docker-image", "container-image", "docker":
		return rest, true, nil
	case "oci-layout":
		name, err = ociLayout(rest)
		if err != nil {
			err = fmt.Errorf("--build-context %s: %w", c.name, err)
		}
		return name, true, err
	}
	return "", false, nil
}

// maxIndex bounds the index of an OCI layout, in bytes.
const maxIndex = 4 << 20

// ociLayout turns DIR, DIR:TAG and DIR@DIGEST into a name with a transport,
// which has no form for digests: there the manifest's place counts.
func ociLayout(text string) (string, error) {
	dir, sum, ok := strings.Cut(text, "@")
	if !ok {
		return "oci:" + text, nil
	}
	if _, err := os.Stat(dir); err != nil {
		// DIR:TAG@DIGEST: the digest counts.
		if i := strings.LastIndexByte(dir, ':'); i > 0 {
			dir = dir[:i]
		}
	}
	f, err := os.Open(filepath.Join(dir, "index.json"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	var index v1.Index
	if err := json.NewDecoder(io.LimitReader(f, maxIndex)).Decode(&index); err != nil {
		return "", fmt.Errorf("%s: %w: %w", f.Name(), err, define.ErrInvalid)
	}
	for i, m := range index.Manifests {
		if m.Digest.String() == sum {
			return fmt.Sprintf("oci:%s:@%d", dir, i), nil
		}
	}
	return "", fmt.Errorf("%s holds no image %s: %w", dir, sum, define.ErrNotFound)
}

// open opens a context of files, once.
func (c *namedContext) open(ctx context.Context) (*buildcontext.Context, error) {
	c.once.Do(func() {
		c.files, c.err = buildcontext.Open(ctx, buildcontext.Options{Location: c.value, TempDir: c.options.TempDir, Secrets: c.options.Secrets,
			KeepGitDir: c.options.KeepGitDir, NoBuildFile: true})
		if c.err != nil {
			c.err = fmt.Errorf("--build-context %s: %w", c.name, c.err)
		}
	})
	return c.files, c.err
}

// namedOrigin is where COPY --from and RUN --mount=from= take what lies in a
// further context.
func (s *stage) namedOrigin(ctx context.Context, c *namedContext) (*origin, error) {
	name, ok, err := c.image()
	if err != nil {
		return nil, err
	}
	if ok {
		return s.imageOrigin(ctx, name)
	}
	files, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	o := &origin{ignore: files.Ignore(), here: "context " + c.name}
	if s.b.index != nil {
		o.index = s.b.index
	}
	o.open = func(context.Context) (*copier.Root, error) { return files.Root(), nil }
	return o, nil
}

// fromContext begins a stage with a further context: an image, or the files of
// a directory as the one layer.
func (s *stage) fromContext(ctx context.Context, c *namedContext) error {
	name, ok, err := c.image()
	if err != nil {
		return err
	}
	if ok {
		return s.fromImage(ctx, name)
	}
	if err := s.fromImage(ctx, "scratch"); err != nil {
		return err
	}
	t := &transfer{keyword: "FROM", sources: []string{"."}, dest: "/", from: c.name}
	in := s.def.From
	in.Text = "COPY --from=" + c.name + " / /"
	in.Keyword = "COPY"
	s.of++
	err = s.transfer(ctx, &in, t)
	var ie *InstructionError
	if errors.As(err, &ie) {
		err = ie.Err
	}
	return err
}
