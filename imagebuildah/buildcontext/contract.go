package buildcontext

import (
	"context"
	"io"

	"github.com/stratabuild/strata/copier"
)

// Options says where the context is.
type Options struct {
	// Location is a folder, "-", an http(s) URL or a git URL; "" is ".".
	Location string
	// Files are -f's values; empty: Containerfile, else Dockerfile in the
	// context. "-" is Stdin. Relative names are tried from the working
	// folder, then from the context.
	Files []string
	// IgnoreFile overrides <file>.containerignore, <file>.dockerignore,
	// .containerignore and .dockerignore, which are looked for in this order.
	IgnoreFile string
	Stdin      io.Reader
	// TempDir is where streams are unpacked; "": TMPDIR, else /var/tmp.
	TempDir string
}

// Context is an open build context.
type Context struct {
	root *copier.Root
	// Name says what it is, for events and cache slots.
	Name string
	// Containerfile is the (joined) content of the build file, and the name
	// for messages.
	Containerfile     []byte
	ContainerfileName string
	ignore            *Ignore
}

// Open makes the context ready. Errors name the file or URL and the remedy.
func Open(ctx context.Context, o Options) (*Context, error) { panic("buildcontext") }

// Root is the context's directory.
func (c *Context) Root() *copier.Root { return c.root }

// Ignore is the matcher, nil when nothing is ignored.
func (c *Context) Ignore() copier.Matcher { panic("buildcontext") }

// Close removes what was unpacked.
func (c *Context) Close() error { panic("buildcontext") }

// Ignore matches paths as Docker does (moby/patternmatcher).
type Ignore struct{ _ int }

// ParseIgnore reads an ignore file; malformed lines are errors with their
// line number, never a panic.
func ParseIgnore(name string, content []byte) (*Ignore, error) { panic("buildcontext") }

// Excluded implements copier.Matcher. The Containerfile and the ignore file
// may be excluded like any other.
func (i *Ignore) Excluded(path string) (excluded, descend bool, err error) { panic("buildcontext") }

// Download fetches a URL for ADD into a temporary file (removed when it is
// closed): at most maxBytes, names and times from the response.
func Download(ctx context.Context, url, tempDir string, maxBytes int64) (*Downloaded, error) {
	panic("buildcontext")
}

// Downloaded is a fetched file.
type Downloaded struct {
	io.ReadSeekCloser
	Name    string // last element of the URL's path
	Size    int64
	ModTime string // RFC 3339, "" when unknown
	Digest  string // sha256:...
}
