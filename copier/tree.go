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

// deepDir is a directory to be read later.
type deepDir struct {
	real   string
	node   *node
	filter treeFilter
}

// whole reads the tree below the open directory into n, and then what was too
// deep for one descent.
func (w *selector) whole(dir int, realPath string, n *node, f treeFilter) error {
	if err := w.tree(dir, realPath, n, f, 0); err != nil {
		return err
	}
	if len(w.later) == 0 && f.include == nil {
		return nil
	}
	for len(w.later) > 0 {
		d := w.later[len(w.later)-1]
		w.later = w.later[:len(w.later)-1]
		fd, err := w.root.resolver().OpenReal(d.real, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fail("open directory", d.real, err)
		}
		err = w.tree(fd, d.real, d.node, d.filter, 0)
		at.Close(fd)
		if err != nil {
			return err
		}
	}
	prune(n)
	return nil
}

// tree reads the directory dir, which lies at realPath, into n.
func (w *selector) tree(dir int, realPath string, n *node, f treeFilter, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := at.ReadDir(dir)
	if err != nil {
		return fail("read directory", realPath, err)
	}
	n.kids = make([]node, 0, len(entries))
	for _, e := range entries {
		if err := w.entry(dir, realPath, n, e, f, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *selector) entry(dir int, realPath string, n *node, e at.Entry, f treeFilter, depth int) error {
	typ := e.Type
	switch typ {
	case unix.S_IFSOCK:
		return nil // a socket is nothing without its process
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
	default:
		var st unix.Stat_t
		if err := at.Lstat(dir, e.Name, &st); err != nil {
			return fail("stat", path.Join(realPath, e.Name), err)
		}
		if typ = st.Mode & unix.S_IFMT; typ == unix.S_IFSOCK {
			return nil
		}
	}
	kid := node{name: e.Name, typ: typ}
	sub, in, descend, err := w.filter(join(realPath, e.Name), join(f.rel, e.Name), typ, f)
	if err != nil {
		return err
	}
	if typ != unix.S_IFDIR {
		if in {
			n.kids = append(n.kids, kid)
		}
		return nil
	}
	if !in && !descend {
		return nil
	}
	kid.pass = !in
	if !descend {
		n.kids = append(n.kids, kid)
		return nil
	}
	childPath := join(realPath, e.Name)
	if depth+1 >= maxDepth {
		// n.kids has room for all entries: the pointer stays good.
		n.kids = append(n.kids, kid)
		w.later = append(w.later, deepDir{childPath, &n.kids[len(n.kids)-1], sub})
		return nil
	}
	fd, err := at.Open(dir, e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fail("open directory", childPath, err)
	}
	err = w.tree(fd, childPath, &kid, sub, depth+1)
	at.Close(fd)
	if err != nil {
		return err
	}
	if in || len(kid.kids) > 0 {
		n.kids = append(n.kids, kid)
	}
	return nil
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
			w.ignored = realPath
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
	dir, err := at.Open(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOTDIR {
		return source{}, false, nil
	}
	if err != nil {
		return source{}, false, fail("open directory", base, err)
	}
	defer at.Close(dir)
	var st unix.Stat_t
	if err := at.Stat(dir, &st); err != nil {
		return source{}, false, fail("stat", base, err)
	}
	src := source{path: base, real: realPath, info: infoOf(&st)}
	src.node = node{name: path.Base(base), typ: unix.S_IFDIR, pass: true}
	if err := w.whole(dir, realPath, &src.node, f); err != nil {
		return source{}, false, err
	}
	return src, len(src.node.kids) > 0, nil
}

// prune drops directories that are only passed through and lead to nothing.
func prune(n *node) {
	kept := n.kids[:0]
	for i := range n.kids {
		k := &n.kids[i]
		prune(k)
		if !k.pass || len(k.kids) > 0 {
			kept = append(kept, *k)
		}
	}
	n.kids = kept
}
