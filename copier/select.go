package copier

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Matcher says which paths of a context are left out. Paths are relative to
// the source root, with slashes and without a leading one.
type Matcher interface {
	// Excluded reports whether path is left out. When it is a directory that
	// is left out, descend reports whether something below may still be in.
	// It is called from one goroutine at a time.
	Excluded(path string) (excluded, descend bool, err error)
}

// Select describes one COPY or ADD.
type Select struct {
	// Patterns are the unsafe source names as written: relative to the root,
	// wildcards as path.Match reads them, a leading slash ignored. "." and ".."
	// are resolved in the text, as Docker does, and cannot lead above the root.
	// A symbolic link that a pattern names is followed inside the root; links
	// below a directory are taken as links.
	Patterns []string
	// Ignore leaves paths out; nil leaves out none.
	Ignore Matcher
	// Exclude holds --exclude patterns, relative to each source, in the
	// language of ignore files. For a source that is not a directory, and for
	// one that a wildcard found, its own name counts too.
	Exclude []string
	// Parents keeps the source's directories (COPY --parents): those after
	// "/./" where the pattern has it. "**" matches any number of components.
	Parents bool
	// NoFollow takes a symbolic link that a pattern names as the link; only
	// those in directories on the way to it are followed. Not with Parents.
	NoFollow bool
	// Digest computes the digests of directories while they are read, for a
	// Digests with the same options; nil does not.
	Digest *DigestOptions
	// AllowEmpty: wildcards that match nothing are no error, even if that
	// leaves no source.
	AllowEmpty bool
}

// Selection is what one COPY or ADD takes from a source root. It holds names
// and metadata, no contents; it is valid while the root is open.
type Selection struct {
	root    *Root
	sources []source
	missing error
	// done is how what is digested was digested; nil when nothing is.
	done *digester
	// attrs are the extended attributes of files that a Put with Hash copied.
	attrs map[*node][]xattr
}

// Missing says why the first wildcard that matched nothing did so; nil when all
// patterns matched something.
func (s *Selection) Missing() error { return s.missing }

// Source is one top-level object of a Selection.
type Source struct {
	Path string // relative to the source root
	Info Info
}

// source is one top-level object.
type source struct {
	path string // as named, cleaned
	real string // where it lies, free of links
	top  *dir   // of the one object
	info Info
	// digested: all below the directory was.
	digested bool
}

func (s *source) isDir() bool { return s.top.nodes[0].isDir() }

func (s *source) name() string { return s.top.name(0) }

// Sources lists the selected top-level sources, in the order of the patterns
// and sorted within each.
func (s *Selection) Sources() []Source {
	out := make([]Source, len(s.sources))
	for i, src := range s.sources {
		out[i] = Source{Path: src.path, Info: src.info}
	}
	return out
}

// Select expands s below r. A pattern without wildcards that matches nothing
// is an error that names it, and says so when the ignore file is why. Wildcards
// may match nothing as long as another pattern matches something (the
// "COPY a optional* /" idiom).
func (r *Root) Select(ctx context.Context, s Select) (*Selection, error) {
	exclude, err := newPatterns(s.Exclude)
	if err != nil {
		return nil, err
	}
	sel := &Selection{root: r}
	if s.Digest != nil {
		sel.done = newDigester(*s.Digest)
	}
	for _, pattern := range s.Patterns {
		w := selector{ctx: ctx, root: r, ignore: s.Ignore, exclude: exclude, noFollow: s.NoFollow, digest: sel.done, found: len(sel.sources)}
		w.src.sel = sel
		var found []source
		if s.Parents {
			found, err = w.parents(pattern)
		} else {
			found, err = w.sources(pattern)
		}
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			sel.sources = append(sel.sources, found...)
			continue
		}
		err = w.nothing(pattern)
		if !hasWildcard(pattern) {
			return nil, err
		}
		if sel.missing == nil {
			sel.missing = err
		}
	}
	switch {
	case len(sel.sources) > 0:
	case sel.missing == nil:
		return nil, fmt.Errorf("no source was given: %w", define.ErrInvalid)
	case !s.AllowEmpty:
		return nil, sel.missing
	}
	return sel, nil
}

// selector expands one pattern.
type selector struct {
	ctx     context.Context
	root    *Root
	ignore  Matcher
	exclude *patterns
	// ignored is a path that matched but is left out.
	ignored  string
	excluded bool // by --exclude rather than by the ignore file
	noFollow bool
	digest   *digester // nil: names only
	found    int       // sources so far
	src      sourceReader
	mu       sync.Mutex // filters
}

// nothing explains an empty result.
func (w *selector) nothing(pattern string) error {
	name := showPattern(pattern)
	switch {
	case w.ignored != "" && w.excluded:
		return fmt.Errorf("source %s: %s is left out by --exclude: %w", name, show(w.ignored), define.ErrNotFound)
	case w.ignored != "":
		return fmt.Errorf("source %s: %s exists but is excluded by the ignore file; add a line !%s to it: %w", name, show(w.ignored), w.ignored, define.ErrNotFound)
	case hasWildcard(pattern):
		return fmt.Errorf("source %s: no file matches the pattern: %w", name, define.ErrNotFound)
	}
	if first, _, _ := strings.Cut(strings.TrimLeft(pattern, "/"), "/"); first == ".." {
		return fmt.Errorf("source %s: no such file or directory, since .. does not lead out of the root of the sources: %w", name, define.ErrNotFound)
	}
	return fmt.Errorf("source %s: no such file or directory: %w", name, define.ErrNotFound)
}

// showPattern is show for a source without the pivot of --parents, which the
// caller may have put there.
func showPattern(pattern string) string {
	return show(strings.ReplaceAll(pattern, "/./", "/"))
}

// cleanSource makes a source name relative to the root; "." is the root.
func cleanSource(pattern string) (string, error) {
	if strings.IndexByte(pattern, 0) >= 0 || pattern == "" {
		return "", fmt.Errorf("source %q: want a path: %w", pattern, define.ErrInvalid)
	}
	p := strings.TrimPrefix(path.Clean("/"+pattern), "/")
	if p == "" {
		p = "."
	}
	return p, nil
}

func (w *selector) sources(pattern string) ([]source, error) {
	p, err := cleanSource(pattern)
	if err != nil {
		return nil, err
	}
	names, wild := []string{p}, hasWildcard(p)
	if wild {
		if names, err = w.glob(p); err != nil {
			return nil, err
		}
	}
	var out []source
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		src, ok, err := w.source(name, wild)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, src)
			w.found++
		}
	}
	return out, nil
}

// source resolves one named object and what is below it. It is not ok when
// nothing is there or all of it is left out.
func (w *selector) source(name string, wild bool) (source, bool, error) {
	fd, realPath, err := w.find(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return source{}, false, w.dangling(name)
	}
	if err != nil {
		return source{}, false, fail("find source", name, err)
	}
	defer at.Close(fd)
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return source{}, false, fail("stat", name, err)
	}
	src := source{path: name, real: realPath, info: infoOf(&st)}
	src.top = single(path.Base(name), st.Mode)
	isDir := src.isDir()
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return source{}, false, fmt.Errorf("source %s: it is a socket, which cannot be copied: %w", show(name), define.ErrInvalid)
	}

	out, descend := false, true
	if realPath != "." {
		if out, descend, err = w.isIgnored(name, realPath); err != nil {
			return source{}, false, err
		}
	}
	// The name itself can be excluded unless it is a directory that was asked
	// for by its full name.
	if !out && (wild || !isDir) {
		ex, _, err := w.exclude.match(src.name(), nil)
		if err != nil {
			return source{}, false, err
		}
		if ex {
			w.ignored, w.excluded = name, true
			return source{}, false, nil
		}
	}
	if out && (!isDir || !descend) {
		w.ignored = name
		return source{}, false, nil
	}
	if !isDir {
		return src, true, nil
	}
	sub := src.top.withSub()
	if err := w.whole(realPath, sub, treeFilter{}, w.found); err != nil {
		return source{}, false, err
	}
	src.digested = w.digest != nil
	if out && len(sub.nodes) == 0 {
		w.ignored = name
		return source{}, false, nil
	}
	return src, true, nil
}

// find opens what a name means (O_PATH) and says where it lies.
func (w *selector) find(name string) (fd int, realPath string, err error) {
	if !w.noFollow || name == "." {
		return w.root.resolver().Real(name)
	}
	dir, realDir, err := w.root.resolver().Real(path.Dir(name))
	if err != nil {
		return -1, "", err
	}
	defer at.Close(dir)
	base := path.Base(name)
	fd, err = at.Open(dir, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	return fd, path.Join(realDir, base), err
}

// dangling tells a name that does not exist (nil) from a link that leads
// nowhere.
func (w *selector) dangling(name string) error {
	info, err := w.root.Stat(name, false)
	if err != nil || info.Link == "" {
		return nil
	}
	return fmt.Errorf("source %s: it is a symbolic link to %s, which does not exist inside the source root: %w", show(name), show(info.Link), define.ErrNotFound)
}

// isIgnored asks the ignore file about a source under its own name and, when a
// link led elsewhere, under that of its target.
func (w *selector) isIgnored(name, realPath string) (out, descend bool, err error) {
	if w.ignore == nil {
		return false, true, nil
	}
	out, descend, err = w.ignore.Excluded(realPath)
	if err != nil || out || realPath == name || name == "." {
		return out, descend, err
	}
	linkOut, _, err := w.ignore.Excluded(name)
	return linkOut, false, err
}
