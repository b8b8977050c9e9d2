package copier

import (
	"context"
	"crypto/sha256"
	"path"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// hardLinks connects the names of one inode. The first name that comes is
// copied; the others are made when everything else of the source is there, so
// that no worker waits for another, and by path, so that no descriptor is held
// for them.
type hardLinks struct {
	first map[inode]place
	later []laterLink
}

// place is where an object was made.
type place struct {
	dir     string // real path
	name    string
	inUpper bool
}

type laterLink struct {
	from place
	to   place
	// mtime is what the directory must have afterwards.
	mtime unix.Timespec
}

func (l *hardLinks) reset() { l.first, l.later = map[inode]place{}, nil }

// linked reports whether the object is one that was seen under another name;
// then its link is made later.
func (pt *putter) linked(d *destDir, name string, st *unix.Stat_t) bool {
	if st.Nlink <= 1 {
		return false
	}
	id, here := inode{st.Dev, st.Ino}, place{d.path, name, d.inUpper}
	pt.mu.Lock()
	defer pt.mu.Unlock()
	first, ok := pt.links.first[id]
	if !ok {
		pt.links.first[id] = here
		return false
	}
	mtime := d.st.Mtim
	if d.final != nil {
		mtime = d.final.mtime
	}
	pt.links.later = append(pt.links.later, laterLink{first, here, mtime})
	return true
}

// makeLinks makes the links that were put off.
func (pt *putter) makeLinks() error {
	links := pt.links.later
	pt.links.later = nil
	for _, l := range links {
		if pt.ctx.Err() != nil {
			return context.Cause(pt.ctx)
		}
		if err := pt.makeLink(l); err != nil {
			return fail("link "+show(path.Join(l.from.dir, l.from.name))+" to", join(l.to.dir, l.to.name), err)
		}
	}
	return nil
}

func (pt *putter) makeLink(l laterLink) error {
	// Both names must be reached through one mount. What was written through
	// the overlay is also in the upper directory, in directories copied up
	// for it; the other way round, finished subtrees show in the overlay.
	root := pt.dst
	if l.to.inUpper {
		root = pt.p.Upper
	}
	from, err := root.resolver().OpenReal(l.from.dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer at.Close(from)
	to, err := root.resolver().OpenReal(l.to.dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer at.Close(to)
	if err := replacing(to, l.to.name, func() error {
		return unix.Linkat(from, l.from.name, to, l.to.name, 0)
	}); err != nil {
		return err
	}
	return at.Chtimes(to, l.mtime)
}

// copiedFile is the content of a file as it was copied.
type copiedFile struct {
	state  uint64
	sum    [sha256.Size]byte
	xattrs []xattr
}

// hashedAs keeps what was copied of the object for Digests.
func (pt *putter) hashedAs(it putItem, c copiedFile) {
	n := it.node()
	n.seen, n.flags = c.state, n.flags|flagCopied
	it.d.sums[it.i] = c.sum
	if len(c.xattrs) == 0 {
		return
	}
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.src.sel.attrs == nil {
		pt.src.sel.attrs = map[*node][]xattr{}
	}
	pt.src.sel.attrs[n] = c.xattrs
}

// hashedLinks gives the names of one inode the digest that was computed when
// the first of them was copied.
type hashedLinks struct {
	files map[inode]putItem
	names []hashedName
}

type hashedName struct {
	it putItem
	id inode
}

// hashedLink notes a name of a file that has several: the one that was copied,
// or one that is a link to it.
func (pt *putter) hashedLink(it putItem, st *unix.Stat_t, copied bool) {
	if !pt.p.Hash || st.Nlink <= 1 {
		return
	}
	id := inode{st.Dev, st.Ino}
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if !copied {
		pt.hashed.names = append(pt.hashed.names, hashedName{it, id})
		return
	}
	if pt.hashed.files == nil {
		pt.hashed.files = map[inode]putItem{}
	}
	pt.hashed.files[id] = it
}

// share is called when all workers have ended.
func (h *hashedLinks) share(s *Selection) {
	for _, l := range h.names {
		first, ok := h.files[l.id]
		if !ok {
			continue
		}
		from, to := first.node(), l.it.node()
		to.seen, to.flags = from.seen, to.flags|flagCopied|from.flags&flagQuiet
		l.it.d.sums[l.it.i] = first.d.sums[first.i]
		if attrs := s.attrs[from]; attrs != nil {
			s.attrs[to] = attrs
		}
	}
	h.names = nil
}
