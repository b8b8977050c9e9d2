package cache

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"

	"github.com/stratabuild/strata/copier"
)

const (
	idSize    = 5 * 8
	ageAt     = idSize + 32
	entrySize = ageAt + 1
	// A block is what is read and checked at once: what the allocator gives
	// for 4 KiB.
	blockEntries = 4096 / entrySize
	blockSize    = blockEntries * entrySize
	markSize     = 16 + 4
	// cachedBlocks is how many blocks of an index stay in memory (4 MiB, for
	// 57,000 files), cachedOfRun how many of a run.
	cachedBlocks = 1024
	cachedOfRun  = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileKey is what entries are sorted by.
type fileKey struct{ dev, ino uint64 }

func (k fileKey) compare(o fileKey) int {
	if k.dev != o.dev {
		return cmp.Compare(k.dev, o.dev)
	}
	return cmp.Compare(k.ino, o.ino)
}

// keyOf is the key of an encoded entry.
func keyOf(e []byte) fileKey {
	return fileKey{binary.BigEndian.Uint64(e), binary.BigEndian.Uint64(e[8:])}
}

// putID encodes what identifies a file and its state.
func putID(b []byte, id copier.FileID) {
	binary.BigEndian.PutUint64(b, id.Dev)
	binary.BigEndian.PutUint64(b[8:], id.Ino)
	binary.LittleEndian.PutUint64(b[16:], uint64(id.Size))
	binary.LittleEndian.PutUint64(b[24:], uint64(id.MTime))
	binary.LittleEndian.PutUint64(b[32:], uint64(id.CTime))
}

// block is some encoded entries, one after the other; the last of a list may
// have fewer than fit.
type block [blockSize]byte

func (b *block) at(i int) []byte { return b[i*entrySize : (i+1)*entrySize : (i+1)*entrySize] }

// damagedBlock stands for one whose bytes are not what was written.
var damagedBlock = new(block)

// mark tells of a block without reading it.
type mark struct {
	first fileKey
	crc   uint32 // CRC-32C of the block's entries
}

// entryList is a sorted list of entries in a file, of which blocks are read as
// they are asked for. The zero entryList is empty. It is safe for concurrent
// use.
type entryList struct {
	file  io.ReaderAt
	start int64 // of the entries in the file
	n     int
	marks []mark // one for each block

	blocks []atomic.Pointer[block] // those in memory
	mu     sync.Mutex
	recent []int32 // which these are, a ring
	oldest int
	room   int
}

// newEntryList makes a list of n entries, whose marks are known.
func newEntryList(file io.ReaderAt, start int64, n int, marks []mark, room int) *entryList {
	return &entryList{file: file, start: start, n: n, marks: marks, blocks: make([]atomic.Pointer[block], len(marks)), room: room}
}

// blocksOf is how many blocks n entries are.
func blocksOf(n int) int { return (n + blockEntries - 1) / blockEntries }

// length is how many entries the block b has.
func (l *entryList) length(b int) int { return min(blockEntries, l.n-b*blockEntries) }

// find returns the entry with the key and its place; nil where there is none.
// Files of a directory were mostly made one after the other: near, where the
// last one was found, is looked at first.
func (l *entryList) find(key fileKey, near int) (e []byte, place int) {
	b := uint(near) / blockEntries
	if b < uint(len(l.blocks)) {
		if p := l.blocks[b].Load(); p != nil && near < l.n {
			if e := p.at(near - int(b)*blockEntries); keyOf(e) == key && p != damagedBlock {
				return e, near
			}
		}
	}
	return l.seek(key, near)
}

// seek is find for what is not at near.
func (l *entryList) seek(key fileKey, near int) (e []byte, place int) {
	if l.n == 0 {
		return nil, 0
	}
	b := near / blockEntries
	if near < 0 || near >= l.n || !l.covers(b, key) {
		if b = l.search(key); b < 0 {
			return nil, 0
		}
	}
	p := l.block(b)
	if p == damagedBlock {
		return nil, 0
	}
	first, lo, hi := b*blockEntries, 0, l.length(b)
	if i := near - first; i >= lo && i < hi {
		switch c := keyOf(p.at(i)).compare(key); {
		case c == 0:
			return p.at(i), near
		case c < 0:
			lo = i + 1
		default:
			hi = i
		}
	}
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := keyOf(p.at(mid)).compare(key); {
		case c == 0:
			return p.at(mid), first + mid
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return nil, 0
}

// covers reports whether the key can be in the block b only.
func (l *entryList) covers(b int, key fileKey) bool {
	return l.marks[b].first.compare(key) <= 0 && (b+1 == len(l.marks) || key.compare(l.marks[b+1].first) < 0)
}

// search returns the block that the key can be in, or -1.
func (l *entryList) search(key fileKey) int {
	lo, hi := 0, len(l.marks)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if l.marks[mid].first.compare(key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// block returns a block, from memory or from the file.
func (l *entryList) block(b int) *block {
	if p := l.blocks[b].Load(); p != nil {
		return p
	}
	p := new(block)
	size := l.length(b) * entrySize
	n, _ := l.file.ReadAt(p[:size], l.start+int64(b)*blockSize)
	if n != size || !l.sound(b, p[:size]) {
		p = damagedBlock
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.blocks[b].Load(); q != nil {
		return q // another goroutine was faster
	}
	if len(l.recent) < l.room {
		l.recent = append(l.recent, int32(b))
	} else {
		l.blocks[l.recent[l.oldest]].Store(nil)
		l.recent[l.oldest] = int32(b)
		l.oldest = (l.oldest + 1) % l.room
	}
	l.blocks[b].Store(p)
	return p
}

// sound reports whether the bytes are the block b as it was written.
func (l *entryList) sound(b int, body []byte) bool {
	if crc32.Checksum(body, castagnoli) != l.marks[b].crc {
		return false
	}
	last := keyOf(body)
	if last != l.marks[b].first {
		return false
	}
	for body = body[entrySize:]; len(body) > 0; body = body[entrySize:] {
		key := keyOf(body)
		if last.compare(key) >= 0 {
			return false
		}
		last = key
	}
	return b+1 == len(l.marks) || last.compare(l.marks[b+1].first) < 0
}

// readAhead is how many blocks of a list are read at once to go through it.
const readAhead = 8

// listReader goes through a list without keeping it; damaged blocks are left
// out.
type listReader struct {
	l     *entryList
	next  int // block to read
	buf   []byte
	rest  []byte // of the blocks in buf, that are sound
	place int    // of rest in the list
	ahead int    // blocks in buf that are not yet in rest
	at    int    // where they begin in buf
}

// entry returns the next entry, or nil. It is good until the next call; place
// is then behind it.
func (r *listReader) entry() []byte {
	if len(r.rest) == 0 && !r.more() {
		return nil
	}
	e := r.rest[:entrySize:entrySize]
	r.rest = r.rest[entrySize:]
	r.place++
	return e
}

// more makes rest hold something, and reports false at the end.
func (r *listReader) more() bool {
	for len(r.rest) == 0 {
		if r.ahead == 0 && !r.fill() {
			return false
		}
		b := r.next - r.ahead
		size := r.l.length(b) * entrySize
		body := r.buf[r.at : r.at+size]
		r.ahead--
		r.at += size
		if r.l.sound(b, body) {
			r.rest, r.place = body, b*blockEntries
		}
	}
	return true
}

// fill reads the next blocks.
func (r *listReader) fill() bool {
	if r.next == len(r.l.marks) {
		return false
	}
	if r.buf == nil {
		r.buf = make([]byte, min(readAhead*blockSize, r.l.n*entrySize))
	}
	r.ahead = min(readAhead, len(r.l.marks)-r.next)
	from := r.next * blockEntries
	size := (min(from+r.ahead*blockEntries, r.l.n) - from) * entrySize
	n, _ := r.l.file.ReadAt(r.buf[:size], r.l.start+int64(from)*entrySize)
	clear(r.buf[n:size]) // what cannot be read is damaged
	r.next += r.ahead
	r.at = 0
	return true
}

// listWriter writes entries, which come sorted, and makes their marks.
type listWriter struct {
	out   *bufio.Writer
	n     int
	marks []mark
	buf   [entrySize]byte
}

func newListWriter(w io.Writer) *listWriter { return &listWriter{out: bufio.NewWriterSize(w, 64<<10)} }

func (w *listWriter) add(e []byte, age uint8) error {
	copy(w.buf[:], e)
	w.buf[ageAt] = age
	if w.n%blockEntries == 0 {
		w.marks = append(w.marks, mark{first: keyOf(e)})
	}
	m := &w.marks[len(w.marks)-1]
	m.crc = crc32.Update(m.crc, castagnoli, w.buf[:])
	w.n++
	_, err := w.out.Write(w.buf[:])
	return err
}
