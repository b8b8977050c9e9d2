package copier

import (
	"encoding/binary"
	"hash/maphash"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is what was selected of one directory. Contexts may hold millions of
// files: a file costs 16 bytes and its name here, and 32 bytes more once it
// was digested.
type dir struct {
	// names holds the names, each ended by a NUL as system calls want them.
	names string
	nodes []node // sorted by name
	subs  []*dir // what the directories among nodes hold
	// sums are the digests of the nodes: of the content alone after a Put with
	// Hash, of the whole object after Digests. nil before both.
	sums [][32]byte
	// listed: the directory was read.
	listed bool
}

// node is one selected object.
type node struct {
	off   uint32 // of the name
	len   uint16
	typ   uint8 // S_IFMT bits >> 12
	flags uint8
	// seen stands for the state in which a file was digested or copied (see
	// stateOf); for a directory it is the index in subs, plus one.
	seen uint64
}

const (
	// pass: a directory that is there only for what is selected below it; one
	// that exists at the destination keeps its metadata.
	flagPass = 1 << iota
	// known: seen is the file's size and time when it was digested; Put
	// compares.
	flagKnown
	// plain: it has no extended attributes to keep (known only).
	flagPlain
	// copied: a Put with Hash has copied it; seen is the state, sums the
	// digest of its content.
	flagCopied
	// quiet: nobody could write to it when it was copied; see writable.
	flagQuiet
	// digested: sums holds the digest of the object.
	flagDigested
	// linked: it has other names; sums leads to what is known of them.
	flagLinked
)

func (n *node) mode() uint32 { return uint32(n.typ) << 12 }

func (n *node) isDir() bool { return n.typ == unix.S_IFDIR>>12 }

func (d *dir) name(i int) string {
	n := &d.nodes[i]
	return d.names[n.off : n.off+uint32(n.len)]
}

// sub is what the directory nodes[i] holds; nil for nothing.
func (d *dir) sub(i int) *dir {
	if n := &d.nodes[i]; n.isDir() && n.seen > 0 {
		return d.subs[n.seen-1]
	}
	return nil
}

// single is a dir of one object, as sources have it.
func single(name string, mode uint32) *dir {
	return &dir{names: name + "\x00", nodes: []node{{len: uint16(len(name)), typ: uint8(mode & unix.S_IFMT >> 12)}}, listed: true}
}

// withSub makes the single directory of d hold what is filled in later.
func (d *dir) withSub() *dir {
	sub := &dir{}
	d.subs = []*dir{sub}
	d.nodes[0].seen = 1
	return sub
}

// makeSums makes room for digests.
func (d *dir) makeSums() {
	if d.sums == nil && len(d.nodes) > 0 {
		d.sums = make([][32]byte, len(d.nodes))
	}
}

// count is the number of objects in d and below.
func (d *dir) count() int {
	c := len(d.nodes)
	for _, s := range d.subs {
		c += s.count()
	}
	return c
}

// prune drops directories that are only passed through and lead to nothing.
func (d *dir) prune() {
	kept := 0
	subs := d.subs[:0]
	for i := range d.nodes {
		sub := d.sub(i)
		if sub != nil {
			sub.prune()
		}
		n := d.nodes[i]
		if n.flags&flagPass != 0 && (sub == nil || len(sub.nodes) == 0) {
			continue
		}
		if sub != nil {
			subs = append(subs, sub)
			n.seen = uint64(len(subs))
		}
		d.nodes[kept] = n
		if d.sums != nil {
			d.sums[kept] = d.sums[i]
		}
		kept++
	}
	clear(d.subs[len(subs):])
	d.nodes, d.subs = d.nodes[:kept], subs
	if d.sums != nil {
		d.sums = d.sums[:kept]
	}
}

// stateSeed makes states of files unforgeable: who writes to a context cannot
// know which would look the same.
var stateSeed = maphash.MakeSeed()

// stateOf is a fingerprint of what the values say. It serves to notice changes
// while a COPY runs; it is never kept.
func stateOf(values ...int64) uint64 {
	var b [5 * 8]byte
	out := b[:0]
	for _, v := range values {
		out = binary.NativeEndian.AppendUint64(out, uint64(v))
	}
	return maphash.Bytes(stateSeed, out)
}

// knownState is what Put compares with what Digests saw.
func knownState(st *unix.Stat_t) uint64 { return stateOf(st.Size, st.Mtim.Sec, st.Mtim.Nsec) }

// copiedState is what Digests compares with what Put saw.
func copiedState(st *unix.Stat_t) uint64 {
	return stateOf(int64(st.Dev), int64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// cursor goes through a source in the order of the paths' bytes, which is not
// that of the directories: "a.c" comes between "a" and "a/b".
type cursor struct {
	source int
	path   []byte
	frames []frame
	dot    bool // the source itself, ".", is still to come
	d      *dir // with i: the object that path names; nil is the source itself
	i      int
}

// frame is a directory that a cursor is in.
type frame struct {
	d      *dir
	next   int
	prefix int // of the path: the directory and its slash
	// pending are directories whose contents come later, innermost last.
	pending []int
}

func (s *source) cursor(index int) *cursor {
	c := &cursor{source: index}
	if sub := s.top.sub(0); s.top.nodes[0].isDir() {
		c.dot = true
		if sub != nil {
			c.frames = append(c.frames, frame{d: sub})
		}
	} else {
		c.frames = append(c.frames, frame{d: s.top})
	}
	return c
}

// next moves to the next object, and reports whether there is one.
func (c *cursor) next() bool {
	for len(c.frames) > 0 {
		f := &c.frames[len(c.frames)-1]
		name := ""
		more := f.next < len(f.d.nodes)
		if more {
			name = f.d.name(f.next)
		}
		p := len(f.pending) - 1
		enter := p >= 0 && (!more || slashBefore(f.d.name(f.pending[p]), name))
		if enter {
			name = f.d.name(f.pending[p])
		}
		switch {
		case !enter && !more:
			if len(c.frames) == 1 && c.takeDot() {
				return true
			}
			c.frames = c.frames[:len(c.frames)-1]
			continue
		case c.dot && len(c.frames) == 1 && name > ".":
			return c.takeDot()
		}
		c.path = append(c.path[:f.prefix], name...)
		if enter {
			sub := f.d.sub(f.pending[p])
			f.pending = f.pending[:p]
			c.path = append(c.path, '/')
			c.push(sub)
			continue
		}
		c.d, c.i = f.d, f.next
		f.next++
		if sub := f.d.sub(c.i); sub != nil && len(sub.nodes) > 0 {
			f.pending = append(f.pending, c.i)
		}
		return true
	}
	return c.takeDot()
}

// push enters a directory, with the memory of one that was left.
func (c *cursor) push(sub *dir) {
	n := len(c.frames)
	if n < cap(c.frames) {
		c.frames = c.frames[:n+1]
		f := &c.frames[n]
		f.d, f.next, f.prefix, f.pending = sub, 0, len(c.path), f.pending[:0]
		return
	}
	c.frames = append(c.frames, frame{d: sub, prefix: len(c.path)})
}

func (c *cursor) takeDot() bool {
	if !c.dot {
		return false
	}
	c.dot, c.d, c.path = false, nil, append(c.path[:0], '.')
	return true
}

// slashBefore reports whether what is below the directory comes before name,
// another name beside it.
func slashBefore(directory, name string) bool {
	n := min(len(directory), len(name))
	if c := strings.Compare(directory[:n], name[:n]); c != 0 {
		return c < 0
	}
	return len(name) > len(directory) && '/' < name[len(directory)]
}
