package copier

import (
	"path"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// maxDepth is how many directories a walk keeps open below each other. What
// lies deeper is taken up again by its path when the rest is done, so that the
// limit on open files does not limit the depth of a tree.
const maxDepth = 64

// treeFilter is what a directory's own matches mean for its children.
type treeFilter struct {
	rel     string // path below the source
	state   *patternmatcher.MatchInfo
	include *patterns // --parents' pattern; nil takes all
	incl    *patternmatcher.MatchInfo
	// literal is what is left of the pattern's first components that hold no
	// wildcard: only the directories they name need to be read.
	literal []string
}

// whole reads the tree below realPath into d, and digests it when there is a
// digester.
func (w *selector) whole(realPath string, d *dir, f treeFilter, source int) error {
	s := newScanner(w.ctx, &w.src)
	s.sel, s.digest = w, w.digest
	if err := s.run(scanJob{real: realPath, d: d, filter: f, source: source}); err != nil {
		return err
	}
	if s.pass {
		d.prune()
	}
	return nil
}

// selective reports whether anything may be left out.
func (w *selector) selective(f treeFilter) bool {
	return w.ignore != nil || w.exclude != nil || f.include != nil
}

// entry decides on one entry of the directory fd; sub is what a directory's own
// entries are filtered by, nil when nothing is left out.
func (w *selector) entry(fd int, j scanJob, e *at.Dirent, name string) (keep bool, sub *treeFilter, err error) {
	switch e.Type {
	case unix.S_IFSOCK:
		return false, nil, nil // a socket is nothing without its process
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
	default:
		var st unix.Stat_t
		if err := at.Lstat(fd, name, &st); err != nil {
			return false, nil, fail("stat", path.Join(j.real, name), err)
		}
		if e.Type = st.Mode & unix.S_IFMT; e.Type == unix.S_IFSOCK {
			return false, nil, nil
		}
	}
	if !w.selective(j.filter) {
		return true, nil, nil
	}
	// Matchers are asked by one goroutine at a time.
	w.mu.Lock()
	defer w.mu.Unlock()
	f, in, descend, err := w.filter(join(j.real, name), join(j.filter.rel, name), e.Type, j.filter)
	e.Pass = !in
	return in || descend, &f, err
}

// filter decides on one object: whether it is in, and for a directory whether
// something below may be.
func (w *selector) filter(realPath, rel string, typ uint32, f treeFilter) (sub treeFilter, in, descend bool, err error) {
	sub = treeFilter{rel: rel, include: f.include}
	in, descend = true, true
	if w.ignore != nil {
		out, below, err := w.ignore.Excluded(realPath)
		if err != nil {
			return sub, false, false, err
		}
		if out {
			w.ignored = max(w.ignored, realPath) // whichever goroutine came last
			in, descend = false, below
		}
	}
	if w.exclude != nil && (in || descend) {
		var out bool
		if out, sub.state, err = w.exclude.match(rel, f.state); err != nil {
			return sub, false, false, err
		}
		if out {
			in = false
			descend = descend && w.exclude.negates()
		}
	}
	if len(f.literal) > 0 {
		if path.Base(rel) != f.literal[0] {
			return sub, false, false, nil
		}
		sub.literal = f.literal[1:]
	}
	if f.include != nil && (in || descend) {
		var match bool
		if match, sub.incl, err = f.include.match(rel, f.incl); err != nil {
			return sub, false, false, err
		}
		in = in && match
	}
	return sub, in, descend && typ == unix.S_IFDIR, nil
}

// literalPrefix returns the components of a pattern before its first wildcard
// or escape.
func literalPrefix(pattern string) []string {
	var out []string
	for c := range strings.SplitSeq(pattern, "/") {
		if strings.ContainsAny(c, `*?[\!`) || c != strings.TrimSpace(c) {
			break
		}
		out = append(out, c)
	}
	return out
}

// join joins a real path and a name; "" and "." are the root.
func join(dir, name string) string {
	if dir == "" || dir == "." {
		return name
	}
	return dir + "/" + name
}

// parents expands a pattern of COPY --parents: one source, the directory at
// the pivot, of which only what matches is taken.
func (w *selector) parents(pattern string) ([]source, error) {
	pivot, rest, ok := strings.Cut(pattern, "/./")
	if !ok {
		pivot, rest = ".", pattern
	}
	if pivot == "" {
		pivot = "."
	}
	pivot, err := cleanSource(pivot)
	if err != nil {
		return nil, err
	}
	if rest, err = cleanSource(rest); err != nil {
		return nil, err
	}
	if strings.HasPrefix(rest, "!") {
		rest = `\` + rest // not the negation of the matcher's language
	}
	if rest == "." {
		rest = "**" // everything
	}
	include, err := newPatterns([]string{rest})
	if err != nil {
		return nil, err
	}
	bases := []string{pivot}
	if hasWildcard(pivot) {
		if bases, err = w.glob(pivot); err != nil {
			return nil, err
		}
	}
	var out []source
	for _, base := range bases {
		src, ok, err := w.pivot(base, treeFilter{include: include, literal: literalPrefix(rest)})
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

func (w *selector) pivot(base string, f treeFilter) (source, bool, error) {
	fd, realPath, err := w.root.resolver().Real(base)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return source{}, false, w.dangling(base)
	}
	if err != nil {
		return source{}, false, fail("find source", base, err)
	}
	defer at.Close(fd)
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return source{}, false, fail("stat", base, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return source{}, false, nil
	}
	src := source{path: base, real: realPath, info: infoOf(&st)}
	src.top = single(path.Base(base), unix.S_IFDIR)
	src.top.nodes[0].flags = flagPass
	sub := src.top.withSub()
	if err := w.whole(realPath, sub, f, w.found); err != nil {
		return source{}, false, err
	}
	src.digested = w.digest != nil
	return src, len(sub.nodes) > 0, nil
}
