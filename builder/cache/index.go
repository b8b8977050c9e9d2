package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// An index file, little endian but for device and inode:
//
//	 0  8  magic
//	 8  4  number of entries
//	12  4  CRC-32C of the entries
//	16     entries, sorted by their first 16 bytes, which no two have in
//	       common: device, inode (8 bytes each, big endian), size, mtime,
//	       ctime (8 bytes each), sha256 of the content, age (1 byte)
//
// It is used as it is read: nothing is decoded, no table is made.
const (
	indexMagic = "strindx2"
	indexHead  = 16
	idSize     = 5 * 8
	ageAt      = idSize + sha256.Size
	entrySize  = ageAt + 1
	// maxEntries bounds a file to 73 MiB and a load to about 100 ms.
	maxEntries = 1 << 20
	// maxAge is how many times an entry is written again without having
	// been used.
	maxAge = 16
)

// racyWindow: a file written so shortly before it was read can be written
// again without a change of its times, where those are coarse.
const racyWindow = 2 * time.Second

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// FileIndex is a copier.Index on disk. It is safe for concurrent use.
type FileIndex struct {
	data   *indexData
	opened int64         // what it is asked to remember was read after this
	near   atomic.Uint32 // where the last look-up ended
}

var _ copier.Index = (*FileIndex)(nil)

// indexData is what all users of one index in a process share.
type indexData struct {
	base, path string
	old        entries
	used       []atomic.Uint32 // a bit for each entry of old
	revive     atomic.Bool     // an old entry was used that would be dropped soon

	found atomic.Bool // there are fresh ones

	mu    sync.Mutex
	fresh freshEntries
	stamp fileStamp // of the file that was loaded or written
}

// entries are encoded entries, sorted.
type entries []byte

func (e entries) len() int { return len(e) / entrySize }

func (e entries) at(i int) []byte { return e[i*entrySize : (i+1)*entrySize : (i+1)*entrySize] }

// find returns the place of the entry with the key (16 bytes), or where it
// would be. Files of a directory were mostly made one after the other: the
// places next to near are looked at first.
func (e entries) find(key []byte, near int) (int, bool) {
	lo, hi := 0, e.len()
	if near >= 0 && near < hi {
		switch c := bytes.Compare(e.at(near)[:16], key); {
		case c == 0:
			return near, true
		case c < 0:
			lo = near + 1
			for step := 1; lo+step < hi; step *= 4 {
				if bytes.Compare(e.at(lo + step)[:16], key) >= 0 {
					hi = lo + step + 1
					break
				}
				lo += step
			}
		default:
			hi = near
			for step := 1; hi-step > lo; step *= 4 {
				if bytes.Compare(e.at(hi - step)[:16], key) <= 0 {
					lo = hi - step
					break
				}
				hi -= step
			}
		}
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(e.at(mid)[:16], key) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < e.len() && bytes.Equal(e.at(lo)[:16], key)
}

// putID encodes what identifies a file and its state.
func putID(b []byte, id copier.FileID) {
	binary.BigEndian.PutUint64(b, id.Dev)
	binary.BigEndian.PutUint64(b[8:], id.Ino)
	binary.LittleEndian.PutUint64(b[16:], uint64(id.Size))
	binary.LittleEndian.PutUint64(b[24:], uint64(id.MTime))
	binary.LittleEndian.PutUint64(b[32:], uint64(id.CTime))
}

// freshEntries are those that this process found out, as they came, in chunks
// (a slice that grows would be copied over and over), with a table of where
// they are.
type freshEntries struct {
	chunks [][]byte
	n      int
	table  []uint32 // open addressing by key: index + 1; 0 is empty
	news   bool     // there are some that were not written
}

const chunkEntries = 4096

func (f *freshEntries) at(i int) []byte {
	i, c := i%chunkEntries, f.chunks[i/chunkEntries]
	return c[i*entrySize : (i+1)*entrySize]
}

// find returns the index of the entry with the key, or -1, and its slot.
func (f *freshEntries) find(key []byte) (i, slot int) {
	if len(f.table) == 0 {
		return -1, 0
	}
	mask := uint64(len(f.table) - 1)
	h := binary.BigEndian.Uint64(key[8:])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(key)
	for s := (h ^ h>>32) & mask; ; s = (s + 1) & mask {
		i := int(f.table[s]) - 1
		if i < 0 || bytes.Equal(f.at(i)[:16], key) {
			return i, int(s)
		}
	}
}

// put adds or replaces an entry.
func (f *freshEntries) put(e []byte) {
	if i, _ := f.find(e[:16]); i >= 0 {
		copy(f.at(i), e)
		return
	}
	if 4*(f.n+1) > 3*len(f.table) {
		f.table = make([]uint32, max(64, 2*len(f.table)))
		for i := range f.n {
			_, slot := f.find(f.at(i)[:16])
			f.table[slot] = uint32(i) + 1
		}
	}
	if f.n%chunkEntries == 0 {
		size := chunkEntries
		if f.n == 0 {
			size = 16 // most builds find out little
		}
		f.chunks = append(f.chunks, make([]byte, 0, size*entrySize))
	}
	last := &f.chunks[len(f.chunks)-1]
	*last = append(*last, e...)
	_, slot := f.find(e[:16])
	f.table[slot] = uint32(f.n) + 1
	f.n++
}

// fileStamp tells one state of an index file from the next.
type fileStamp struct {
	ino   uint64
	mtime unix.Timespec
	size  int64
}

// Index returns the digests of files known from earlier builds, trusted only
// where device, inode, size, mtime and ctime are equal and the file was not
// written in the two seconds before it was read. Flush writes it. To be
// called before the files are read whose digests it is to remember.
//
// A file's content cannot change without a change of its ctime, which the
// kernel alone sets, except within one tick of the clock that stamps files:
// hence the two seconds, counted from the call of Index. A damaged index is
// an empty one.
func (c *Cache) Index(ctx context.Context, name string) (*FileIndex, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	base, err := c.dir()
	if err != nil {
		return nil, err
	}
	opened := c.now().UnixNano()
	sum := newFieldHash("strata cache index 1\n")
	sum.field(name)
	id := sum.sum()
	path := filepath.Join(base, "index", hex.EncodeToString(id[:]))

	c.mu.Lock()
	defer c.mu.Unlock()
	stamp, err := stampOf(path)
	if err != nil {
		return nil, fmt.Errorf("build cache: file index %q: %w", name, err)
	}
	if d := c.indexes[name]; d != nil && d.data.unchanged(stamp) {
		return &FileIndex{data: d.data, opened: opened}, nil
	}
	d := &indexData{base: base, path: path}
	if d.old, d.stamp, err = loadIndex(path, c.now()); err != nil {
		return nil, fmt.Errorf("build cache: file index %q: %w", name, err)
	}
	d.used = make([]atomic.Uint32, (d.old.len()+31)/32)
	x := &FileIndex{data: d, opened: opened}
	if c.indexes == nil {
		c.indexes = make(map[string]*FileIndex)
	}
	c.indexes[name] = x
	return x, nil
}

func (d *indexData) unchanged(s fileStamp) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stamp == s
}

// Lookup implements copier.Index.
func (x *FileIndex) Lookup(id copier.FileID) (content [sha256.Size]byte, ok bool) {
	var want [idSize]byte
	putID(want[:], id)
	d := x.data
	// Where the last look-up ended is a hint, whoever made it.
	if i, found := d.old.find(want[:16], int(x.near.Load())); found {
		x.near.Store(uint32(i) + 1)
		if e := d.old.at(i); bytes.Equal(e[:idSize], want[:]) {
			d.use(i, e[ageAt])
			return [sha256.Size]byte(e[idSize:]), true
		}
	}
	if !d.found.Load() {
		return content, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i, _ := d.fresh.find(want[:16]); i >= 0 {
		if e := d.fresh.at(i); bytes.Equal(e[:idSize], want[:]) {
			return [sha256.Size]byte(e[idSize:]), true
		}
	}
	return content, false
}

func (d *indexData) use(i int, age byte) {
	if bit := uint32(1) << (i % 32); d.used[i/32].Load()&bit == 0 {
		d.used[i/32].Or(bit)
	}
	if age >= maxAge/2 && !d.revive.Load() {
		d.revive.Store(true) // or it would be dropped in spite of its use
	}
}

func (d *indexData) isUsed(i int) bool { return d.used[i/32].Load()&(1<<(i%32)) != 0 }

// Remember implements copier.Index.
func (x *FileIndex) Remember(id copier.FileID, content [sha256.Size]byte) {
	if max(id.MTime, id.CTime) > x.opened-int64(racyWindow) {
		return
	}
	var e [entrySize]byte
	putID(e[:], id)
	copy(e[idSize:], content[:])
	d := x.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fresh.n < maxEntries {
		d.fresh.put(e[:])
		d.fresh.news = true
		d.found.Store(true)
	}
}

// Flush writes what was remembered, by rename. It does nothing when nothing
// was.
func (x *FileIndex) Flush() error {
	d := x.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fresh.news && !d.revive.Load() {
		return nil
	}
	// Another process may have written in the meantime; what it found out is
	// worth as much. A write between this and ours costs a reading, no more.
	var others entries
	if stamp, err := stampOf(d.path); err == nil && stamp != d.stamp && stamp != (fileStamp{}) {
		if others, _, err = loadIndex(d.path, time.Time{}); err != nil {
			others = nil
		}
	}
	m := d.merge(others)
	if err := writeFile(d.base, d.path, m.write); err != nil {
		return fmt.Errorf("build cache: write a file index: %w", err)
	}
	d.fresh.news = false
	d.revive.Store(false)
	d.stamp, _ = stampOf(d.path)
	return nil
}

// merged goes through several lists of entries in one order.
type merged struct {
	d      *indexData
	others entries
	fresh  []uint32 // sorted
	oldest uint8    // age that is left out
}

// merge prepares the list that is written: what is fresh, what was known and
// used, and the rest for a while.
func (d *indexData) merge(others entries) *merged {
	m := &merged{d: d, others: others, fresh: make([]uint32, d.fresh.n), oldest: maxAge + 1}
	for i := range m.fresh {
		m.fresh[i] = uint32(i)
	}
	slices.SortFunc(m.fresh, func(a, b uint32) int { return bytes.Compare(d.fresh.at(int(a))[:16], d.fresh.at(int(b))[:16]) })
	// Full: new files would never get in. What was not used goes, the older
	// first.
	for count := m.count(); count >= maxEntries && m.oldest > 0; count = m.count() {
		m.oldest /= 2
	}
	return m
}

func (m *merged) count() int {
	n := 0
	m.each(func([]byte, uint8) error { n++; return nil })
	return n
}

// each calls f with the entries in order, until it fails. Of one file the
// fresh entry counts, then our own, then another's.
func (m *merged) each(f func(e []byte, age uint8) error) error {
	d := m.d
	for i, j, k := 0, 0, 0; ; {
		var e []byte
		age := uint8(0)
		if k < len(m.fresh) {
			e = d.fresh.at(int(m.fresh[k]))
		}
		if i < d.old.len() && (e == nil || bytes.Compare(d.old.at(i)[:16], e[:16]) < 0) {
			e = d.old.at(i)
			if !d.isUsed(i) {
				age = e[ageAt]
			}
		}
		if j < m.others.len() && (e == nil || bytes.Compare(m.others.at(j)[:16], e[:16]) < 0) {
			e = m.others.at(j)
			age = e[ageAt]
		}
		if e == nil {
			return nil
		}
		for i < d.old.len() && bytes.Equal(d.old.at(i)[:16], e[:16]) {
			i++
		}
		for j < m.others.len() && bytes.Equal(m.others.at(j)[:16], e[:16]) {
			j++
		}
		if k < len(m.fresh) && bytes.Equal(d.fresh.at(int(m.fresh[k]))[:16], e[:16]) {
			k++
		}
		if age > 0 && age >= m.oldest {
			continue
		}
		if err := f(e, age); err != nil {
			return err
		}
	}
}

// write writes the file; each entry is older by one when it is read.
func (m *merged) write(fd int) error {
	out := bufio.NewWriterSize(writer(fd), 64<<10)
	if _, err := out.Write(make([]byte, indexHead)); err != nil {
		return err
	}
	n, sum := uint32(0), uint32(0)
	var b [entrySize]byte
	err := m.each(func(e []byte, age uint8) error {
		if n == maxEntries {
			return nil
		}
		copy(b[:], e)
		b[ageAt] = age
		sum = crc32.Update(sum, castagnoli, b[:])
		n++
		_, err := out.Write(b[:])
		return err
	})
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	head := append(make([]byte, 0, indexHead), indexMagic...)
	head = binary.LittleEndian.AppendUint32(head, n)
	head = binary.LittleEndian.AppendUint32(head, sum)
	_, err = writerAt(fd).WriteAt(head, 0)
	return err
}

// decodeIndex checks a file; what is damaged has no entries. Each entry gets
// older by one.
func decodeIndex(b []byte) entries {
	if len(b) < indexHead || string(b[:8]) != indexMagic {
		return nil
	}
	n := int(binary.LittleEndian.Uint32(b[8:]))
	body := entries(b[indexHead:])
	if n > maxEntries || len(body) != n*entrySize || crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return nil
	}
	for i := range n {
		e := body.at(i)
		if i > 0 && bytes.Compare(body.at(i - 1)[:16], e[:16]) >= 0 {
			return nil
		}
		e[ageAt] = min(e[ageAt], maxAge) + 1
	}
	return body
}

// loadIndex reads a file; one that is missing or damaged has no entries. The
// time of use is noted when now is not zero.
func loadIndex(path string, now time.Time) (entries, fileStamp, error) {
	fd, err := openFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, fileStamp{}, nil
	case err != nil:
		return nil, fileStamp{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	if !now.IsZero() {
		touchFile(fd, now)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fileStamp{}, err
	}
	stamp := fileStamp{st.Ino, st.Mtim, st.Size}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > indexHead+maxEntries*entrySize {
		return nil, stamp, nil
	}
	b := make([]byte, st.Size)
	n, err := readAt(fd, b, 0)
	if err != nil {
		return nil, fileStamp{}, err
	}
	return decodeIndex(b[:n]), stamp, nil
}

// stampOf returns the zero stamp when there is no file.
func stampOf(path string) (fileStamp, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fileStamp{}, nil
	case err != nil:
		return fileStamp{}, err
	}
	return fileStamp{st.Ino, st.Mtim, st.Size}, nil
}
