package copier

import (
	"bytes"
	"cmp"
	"container/heap"
	"crypto/sha256"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// FileDigest is one named part of a cache key: a path as it will lie below
// the destination, and a digest over its type, mode, owner (when kept), link
// target, device number, hard links, extended attributes and content. Times
// do not count. A directory source itself has the path "." and counts with its
// type only, since its content is what is copied.
type FileDigest struct {
	Path   string
	Digest digest.Digest
}

// Digests are the digests of all objects of a Selection, sorted by path, and
// those of one path by source. They hold no more memory than the Selection
// and stay good when its root is closed.
type Digests struct {
	sources []source
	total   int
}

// Len is the number of objects.
func (d *Digests) Len() int { return d.total }

// Each calls yield for each object until it returns false. path is good until
// then only.
func (d *Digests) Each(yield func(path []byte, sum *[sha256.Size]byte) bool) {
	top := sourceDirSum()
	emit := func(c *cursor) bool {
		if c.d == nil {
			return yield(c.path, &top)
		}
		return yield(c.path, &c.d.sums[c.i])
	}
	if len(d.sources) == 1 {
		for c := d.sources[0].cursor(0); c.next(); {
			if !emit(c) {
				return
			}
		}
		return
	}
	var h cursorHeap
	for i := range d.sources {
		if c := d.sources[i].cursor(i); c.next() {
			h = append(h, c)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		if !emit(h[0]) {
			return
		}
		if h[0].next() {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
}

// List returns all at once, which is for few files.
func (d *Digests) List() []FileDigest {
	out := make([]FileDigest, 0, d.total)
	d.Each(func(path []byte, sum *[sha256.Size]byte) bool {
		out = append(out, FileDigest{string(path), hexDigest(*sum)})
		return true
	})
	return out
}

// sourceDirSum is the digest of a directory as a source.
var sourceDirSum = sync.OnceValue(func() [sha256.Size]byte { return (&object{typ: unix.S_IFDIR}).digest(nil) })

// cursorHeap gives the objects of several sources in order.
type cursorHeap []*cursor

func (h cursorHeap) Len() int { return len(h) }

func (h cursorHeap) Less(i, j int) bool {
	return cmp.Or(bytes.Compare(h[i].path, h[j].path), cmp.Compare(h[i].source, h[j].source)) < 0
}

func (h cursorHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *cursorHeap) Push(x any) { *h = append(*h, x.(*cursor)) }

func (h *cursorHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}
