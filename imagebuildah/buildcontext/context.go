package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// Limits of what is read; those of Options are defaults.
const (
	// MaxBuildFile is the size of a build file, or of several joined.
	MaxBuildFile = 16 << 20
	// MaxIgnoreFile is the size of an ignore file.
	MaxIgnoreFile = 4 << 20
	// DefaultMaxDownload bounds a context that is downloaded.
	DefaultMaxDownload = 16 << 30
	// DefaultMaxBytes bounds what an archive unpacks to.
	DefaultMaxBytes = 64 << 30
	// DefaultMaxMembers bounds the members of an archive.
	DefaultMaxMembers = 10_000_000
)

// Options says where the context is.
type Options struct {
	// Location is a folder, "-", an http(s) URL or a git URL; "" is ".".
	Location string
	// Files are -f's values; empty: Containerfile, else Dockerfile in the
	// context. "-" is Stdin, an http(s) URL is fetched. Relative names are
	// tried from the working folder, then from the context; for a context
	// that is not a folder, from the context first.
	Files []string
	// IgnoreFile overrides <file>.containerignore, <file>.dockerignore,
	// .containerignore and .dockerignore, which are looked for in this order.
	IgnoreFile string
	Stdin      io.Reader
	// TempDir is where streams are unpacked; "": TMPDIR, else /var/tmp.
	TempDir string
	// NoBuildFile: the context holds files for other contexts' build files
	// only (--build-context). None is read, and there must be more than one.
	NoBuildFile bool
	// CPPFlags are for build files that end in .in, which the C preprocessor
	// reads; see cpp.ParseFlags.
	CPPFlags []string
	// KeepGitDir leaves .git in a context from a git repository.
	KeepGitDir bool
	// Secrets may hold what servers ask for.
	Secrets Secrets
	// MaxDownload, MaxBytes and MaxMembers bound a downloaded context, what
	// an archive unpacks to, and its members; zero is the default of the name.
	MaxDownload, MaxBytes, MaxMembers int64
}

// Context is an open build context.
type Context struct {
	root *copier.Root
	// Name says what it is, for events and cache slots: the absolute path of
	// a folder, "stdin", or the URL without credentials.
	Name string
	// Containerfile is the (joined) content of the build file, and the name
	// for messages.
	Containerfile     []byte
	ContainerfileName string
	// Files are the build files one by one, in order; several are joined with
	// a newline between them.
	Files []BuildFile
	// IgnoreName is the ignore file that was read, "" when there is none.
	IgnoreName string
	// Commit is the checked out commit of a git repository, else "".
	Commit string
	// Warnings are what the user should know about the source.
	Warnings []string

	ignore *Ignore
	temp   string // removed by Close
}

// BuildFile is one build file.
type BuildFile struct {
	Name    string
	Content []byte
	// dir holds the per-file ignore file, base is the file's name in it; dir
	// is nil when there can be none.
	dir  *copier.Root
	base string
	own  bool // dir is closed after use
}

// Root is the context's directory.
func (c *Context) Root() *copier.Root { return c.root }

// Ignore is the matcher, nil when nothing is ignored.
func (c *Context) Ignore() copier.Matcher {
	if c.ignore == nil || c.ignore.Empty() {
		return nil
	}
	return c.ignore
}

// Close removes what was unpacked.
func (c *Context) Close() error {
	var err error
	if c.root != nil {
		err = c.root.Close()
		c.root = nil
	}
	if c.temp != "" {
		err = errors.Join(err, removeTree(c.temp))
		c.temp = ""
	}
	return err
}

// Open makes the context ready. Errors name the file or URL and the remedy.
func Open(ctx context.Context, o Options) (*Context, error) {
	o.setDefaults()
	kind := classify(o.Location)
	if kind == kindStdin {
		for _, f := range o.Files {
			if f == "-" {
				return nil, fmt.Errorf("-f - and the context - both want standard input; name a folder as context, or the file: %w", define.ErrInvalid)
			}
		}
	}
	c := &Context{}
	if err := c.open(ctx, &o, kind); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (o *Options) setDefaults() {
	if o.Location == "" {
		o.Location = "."
	}
	if o.Stdin == nil {
		o.Stdin = strings.NewReader("")
	}
	if o.MaxDownload <= 0 {
		o.MaxDownload = DefaultMaxDownload
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxMembers <= 0 {
		o.MaxMembers = DefaultMaxMembers
	}
}

func (c *Context) open(ctx context.Context, o *Options, kind kind) error {
	defer c.closeDirs()
	var err error
	var lone []byte // a single build file in place of a context
	switch kind {
	case kindFolder:
		err = c.openFolder(o.Location)
	case kindStdin:
		c.Name = "stdin"
		lone, err = c.unpack(ctx, o, o.Stdin)
	case kindHTTP:
		lone, err = c.openURL(ctx, o)
	case kindGit:
		err = c.openGit(ctx, o)
	}
	if err != nil {
		return err
	}
	if o.NoBuildFile {
		if lone != nil {
			return fmt.Errorf("%s is no tar archive, which a context is: %w", c.Name, define.ErrInvalid)
		}
		return c.readIgnore(o)
	}
	if lone != nil && len(o.Files) == 0 {
		c.Files = []BuildFile{{Name: c.Name, Content: lone}}
	} else if err := c.readBuildFiles(ctx, o, kind == kindFolder); err != nil {
		return err
	}
	if err := c.preprocess(ctx, o); err != nil {
		return err
	}
	if err := c.join(); err != nil {
		return err
	}
	return c.readIgnore(o)
}

// closeDirs closes the folders of build files outside of the context.
func (c *Context) closeDirs() {
	for i := range c.Files {
		if c.Files[i].own {
			_ = c.Files[i].dir.Close() // it was only read from
		}
		c.Files[i].dir, c.Files[i].own = nil, false
	}
}

func (c *Context) openFolder(location string) error {
	path, err := filepath.Abs(location)
	if err != nil {
		return fmt.Errorf("build context %s: %w", location, err)
	}
	c.Name = path
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("build context %s does not exist; name a folder, a URL, or - for standard input: %w", location, define.ErrNotFound)
	case err != nil:
		return fmt.Errorf("build context %s: %w", location, bare(err))
	case !info.IsDir():
		return fmt.Errorf("build context %s is not a folder; to build from that file write -f %s and a folder: %w", location, location, define.ErrInvalid)
	}
	// Reading is tried now: a search-only folder would fail at the first COPY.
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("build context %s cannot be read; give yourself read permission: %w", location, bare(err))
	}
	defer dir.Close()
	c.root, err = copier.NewRoot(dir)
	if err != nil {
		return fmt.Errorf("build context %s: %w", location, err)
	}
	return nil
}

// makeTemp makes the folder that Close removes, and a Root of its
// subdirectory "context".
func (c *Context) makeTemp(o *Options) error {
	temp, err := makeTemp(o.TempDir)
	if err != nil {
		return err
	}
	c.temp = temp
	sub := filepath.Join(temp, "context")
	// 0755 and chmod: the context's own mode may end in a layer, and must not
	// depend on the umask. The folder around it keeps others out.
	if err := os.Mkdir(sub, 0o755); err != nil {
		return fmt.Errorf("temporary folder for the build context: %w", err)
	}
	if err := os.Chmod(sub, 0o755); err != nil {
		return fmt.Errorf("temporary folder for the build context: %w", err)
	}
	c.root, err = copier.OpenRoot(sub)
	return err
}

// bare drops the path and operation that the message around it names.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
