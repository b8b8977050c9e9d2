package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"runtime"
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
//	12  4  CRC-32C of the bytes before and of the marks
//	16     entries, sorted by their first 16 bytes, which no two have in
//	       common: device, inode (8 bytes each, big endian), size, mtime,
//	       ctime (8 bytes each), sha256 of the content, age (1 byte)
//	       marks, one for each block of 56 entries: the first one's device
//	       and inode, CRC-32C of the entries
//
// It is used as it is read. Only the marks are read at first, then the blocks
// that are asked for. A damaged block is one without entries.
const (
	indexMagic = "strindx3"
	indexHead  = 16
	// maxEntries bounds a file to 74 MiB.
	maxEntries = 1 << 20
	// maxAge is how many times an entry is written again without having
	// been used.
	maxAge = 16
)

// racyWindow: a file written so shortly before it was read can be written
// again without a change of its times, where those are coarse.
const racyWindow = 2 * time.Second

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
	old        *entryList
	used       []atomic.Uint32 // a bit for each entry of old
	revive     atomic.Bool     // an old entry was used that would be dropped soon

	found atomic.Bool // there are fresh ones

	mu    sync.Mutex
	fresh freshEntries
	stamp fileStamp // of the file that was loaded or written
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
	d.used = make([]atomic.Uint32, (d.old.n+31)/32)
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
func (x *FileIndex) Lookup(id copier.FileID) (sum [sha256.Size]byte, ok bool) {
	var want [idSize]byte
	putID(want[:], id)
	key := fileKey{id.Dev, id.Ino}
	d := x.data
	// Where the last look-up ended is a hint, whoever made it.
	if e, i := d.old.find(key, int(x.near.Load())); e != nil {
		x.near.Store(uint32(i) + 1)
		if bytes.Equal(e[:idSize], want[:]) {
			d.use(i, older(e))
			return content(e), true
		}
	}
	if !d.found.Load() {
		return sum, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.fresh.get(key); e != nil && bytes.Equal(e[:idSize], want[:]) {
		return content(e), true
	}
	return sum, false
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
	d.fresh.put(e[:], d.base)
	d.found.Store(true)
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
	others := &entryList{}
	if stamp, err := stampOf(d.path); err == nil && stamp != d.stamp && stamp != (fileStamp{}) {
		if others, _, err = loadIndex(d.path, time.Time{}); err != nil {
			others = &entryList{}
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

// readIndex checks the head and the marks of an index of size bytes; what is
// damaged has no entries.
func readIndex(file io.ReaderAt, size int64) *entryList {
	var head [indexHead]byte
	if n, _ := file.ReadAt(head[:], 0); n < indexHead || string(head[:8]) != indexMagic {
		return &entryList{}
	}
	n := int64(binary.LittleEndian.Uint32(head[8:]))
	if n > maxEntries || size != indexHead+n*entrySize+int64(blocksOf(int(n)))*markSize {
		return &entryList{}
	}
	table := make([]byte, blocksOf(int(n))*markSize)
	if got, _ := file.ReadAt(table, indexHead+n*entrySize); got < len(table) {
		return &entryList{}
	}
	sum := crc32.Update(crc32.Checksum(head[:12], castagnoli), castagnoli, table)
	if sum != binary.LittleEndian.Uint32(head[12:]) {
		return &entryList{}
	}
	marks := make([]mark, len(table)/markSize)
	for i := range marks {
		b := table[i*markSize:]
		marks[i] = mark{keyOf(b), binary.LittleEndian.Uint32(b[16:])}
		if i > 0 && marks[i-1].first.compare(marks[i].first) >= 0 {
			return &entryList{}
		}
	}
	return newEntryList(file, indexHead, int(n), marks, cachedBlocks)
}

// loadIndex opens an index; one that is missing or damaged has no entries. The
// time of use is noted when now is not zero.
func loadIndex(path string, now time.Time) (*entryList, fileStamp, error) {
	fd, err := openFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return &entryList{}, fileStamp{}, nil
	case err != nil:
		return nil, fileStamp{}, err
	}
	file := newHeldFile(fd)
	defer runtime.KeepAlive(file)
	if !now.IsZero() {
		touchFile(fd, now)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fileStamp{}, err
	}
	stamp := fileStamp{st.Ino, st.Mtim, st.Size}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return &entryList{}, stamp, nil
	}
	return readIndex(file, st.Size), stamp, nil
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
