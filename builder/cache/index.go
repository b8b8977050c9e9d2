package cache

import (
	"cmp"
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
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// An index file, little endian:
//
//	 0  8  magic
//	 8  4  number of entries
//	12  4  CRC-32C of the entries
//	16     entries: device, inode, size, mtime, ctime (8 bytes each), sha256
//	       of the content, age (1 byte)
const (
	indexMagic = "strindx1"
	indexHead  = 16
	entrySize  = 5*8 + sha256.Size + 1
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
	opened int64 // what it is asked to remember was read after this
}

var _ copier.Index = (*FileIndex)(nil)

// indexData is what all users of one index in a process share.
type indexData struct {
	base, path string

	mu      sync.Mutex
	entries []indexEntry
	byFile  map[fileKey]int32
	dirty   bool
	stamp   fileStamp // of the file that was loaded or written
}

type fileKey struct{ dev, ino uint64 }

type indexEntry struct {
	id  copier.FileID
	sum [sha256.Size]byte
	age uint8 // 0: used in this process
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
	if d.entries, d.stamp, err = loadIndex(path, c.now()); err != nil {
		return nil, fmt.Errorf("build cache: file index %q: %w", name, err)
	}
	d.byFile = make(map[fileKey]int32, len(d.entries)+64)
	for i := range d.entries {
		d.byFile[keyOf(d.entries[i].id)] = int32(i)
	}
	x := &FileIndex{data: d, opened: opened}
	if c.indexes == nil {
		c.indexes = make(map[string]*FileIndex)
	}
	c.indexes[name] = x
	return x, nil
}

func keyOf(id copier.FileID) fileKey { return fileKey{id.Dev, id.Ino} }

func (d *indexData) unchanged(s fileStamp) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stamp == s
}

// Lookup implements copier.Index.
func (x *FileIndex) Lookup(id copier.FileID) (digest.Digest, bool) {
	sum, ok := x.data.lookup(id)
	if !ok {
		return "", false
	}
	var buf [len(sha256Prefix) + 2*sha256.Size]byte
	copy(buf[:], sha256Prefix)
	hex.Encode(buf[len(sha256Prefix):], sum[:])
	return digest.Digest(buf[:]), true
}

func (d *indexData) lookup(id copier.FileID) (sum [sha256.Size]byte, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.byFile[keyOf(id)]
	if !ok || d.entries[i].id != id {
		return sum, false
	}
	e := &d.entries[i]
	if e.age > maxAge/2 {
		d.dirty = true // or it would be dropped in spite of its use
	}
	e.age = 0
	return e.sum, true
}

// Remember implements copier.Index. Digests other than sha256 are not kept.
func (x *FileIndex) Remember(id copier.FileID, content digest.Digest) {
	if max(id.MTime, id.CTime) > x.opened-int64(racyWindow) {
		return
	}
	sum, ok := parseSHA256(string(content))
	if !ok {
		return
	}
	d := x.data
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dirty = true
	e := indexEntry{id: id, sum: sum}
	if i, ok := d.byFile[keyOf(id)]; ok {
		d.entries[i] = e
		return
	}
	if len(d.entries) >= maxEntries {
		return
	}
	d.byFile[keyOf(id)] = int32(len(d.entries))
	d.entries = append(d.entries, e)
}

// Flush writes what was remembered, by rename. It does nothing when nothing
// was.
func (x *FileIndex) Flush() error {
	d := x.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dirty {
		return nil
	}
	entries := d.aged()
	// Another process may have written in the meantime; what it found out is
	// worth as much. A write between this and ours costs a reading, no more.
	if stamp, err := stampOf(d.path); err == nil && stamp != d.stamp && stamp != (fileStamp{}) {
		if others, _, err := loadIndex(d.path, time.Time{}); err == nil {
			for i := range others {
				if _, known := d.byFile[keyOf(others[i].id)]; !known && len(entries) < maxEntries {
					entries = append(entries, others[i])
				}
			}
		}
	}
	if err := writeFile(d.base, d.path, encodeIndex(entries)); err != nil {
		return fmt.Errorf("build cache: write a file index: %w", err)
	}
	d.dirty = false
	d.stamp, _ = stampOf(d.path)
	return nil
}

// aged returns the entries to be written: those used, and others for a while.
func (d *indexData) aged() []indexEntry {
	out := make([]indexEntry, 0, len(d.entries))
	for _, e := range d.entries {
		if e.age > maxAge {
			continue
		}
		out = append(out, e)
	}
	if len(out) == maxEntries {
		// Full: new files would never get in. The older half goes.
		slices.SortStableFunc(out, func(a, b indexEntry) int { return cmp.Compare(a.age, b.age) })
		out = out[:maxEntries/2]
	}
	return out
}

// encodeIndex writes entries as a file; each is older by one when it is read.
func encodeIndex(entries []indexEntry) []byte {
	b := make([]byte, 0, indexHead+len(entries)*entrySize)
	b = append(b, indexMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	for i := range entries {
		e := &entries[i]
		b = binary.LittleEndian.AppendUint64(b, e.id.Dev)
		b = binary.LittleEndian.AppendUint64(b, e.id.Ino)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.id.Size))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.id.MTime))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.id.CTime))
		b = append(b, e.sum[:]...)
		b = append(b, e.age)
	}
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[indexHead:], castagnoli))
	return b
}

// decodeIndex reads a file; what is damaged has no entries.
func decodeIndex(b []byte) []indexEntry {
	if len(b) < indexHead || string(b[:8]) != indexMagic {
		return nil
	}
	n := int(binary.LittleEndian.Uint32(b[8:]))
	body := b[indexHead:]
	if n > maxEntries || len(body) != n*entrySize || crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return nil
	}
	entries := make([]indexEntry, n)
	for i := range entries {
		e, r := &entries[i], body[i*entrySize:(i+1)*entrySize]
		e.id.Dev = binary.LittleEndian.Uint64(r)
		e.id.Ino = binary.LittleEndian.Uint64(r[8:])
		e.id.Size = int64(binary.LittleEndian.Uint64(r[16:]))
		e.id.MTime = int64(binary.LittleEndian.Uint64(r[24:]))
		e.id.CTime = int64(binary.LittleEndian.Uint64(r[32:]))
		copy(e.sum[:], r[40:])
		e.age = min(r[entrySize-1], maxAge) + 1
	}
	return entries
}

// loadIndex reads a file; one that is missing or damaged has no entries. The
// time of use is noted when now is not zero.
func loadIndex(path string, now time.Time) ([]indexEntry, fileStamp, error) {
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
