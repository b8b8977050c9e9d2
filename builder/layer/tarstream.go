package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// tarStream turns a frozen upper directory into the layer's tar stream: the
// same bytes as containers/storage would export it as, from one reading.
//
// A walker lists the tree in order and hands batches of members to workers,
// which open, read and check-sum the files straight into the stream's buffer
// and write the tar-split record; the batches are then hashed in order. Large
// files are read ahead in small buffers, so that memory is bounded by some
// ten MiB whatever the tree holds.
type tarStream struct {
	root      *os.File // the upper directory; O_PATH is enough
	userXattr bool     // overlay's marks are user.overlay.*
	timestamp *time.Time
	clamp     *time.Time
	readOnly  bool // the tree is not ours: leave in it what is left out

	// lower mounts what is below the upper, called when a whiteout or an
	// opaque directory is met; nil: there is nothing below.
	lower func() (*os.File, error)
	// out takes the stream, beside the digest; may be nil.
	out io.Writer
	// ownerLog has the owners that are remembered of what has no attributes; may
	// be nil.
	ownerLog *copier.OwnerLog
	// spill is the directory for a large tar-split record; may be nil.
	spill *os.File
	dirs  dirTable
}

// summary is what one reading of an upper yields.
type summary struct {
	Digest     digest.Digest
	Size       int64
	UIDs, GIDs []uint32
	TarSplit   *os.File // the record, uncompressed; nil once handed over
	Members    int
}

// Close releases the record.
func (s *summary) Close() {
	if s.TarSplit != nil {
		s.TarSplit.Close()
		s.TarSplit = nil
	}
}

const (
	batchMembers = 128
	batchBytes   = 512 << 10 // larger files are batches of their own
	chunkBytes   = 256 << 10
	chunkCount   = 4 // read ahead in a large file
	batchQueue   = 4
	readers      = 2
)

// batch is a run of members of the stream.
type batch struct {
	entries []entry
	bytes   int64 // of content
	first   int   // number of the first member in the stream

	done  chan struct{} // closed when buf, split and err are set
	buf   []byte        // the stream's bytes
	split []byte        // the tar-split lines
	err   error

	// A large file's content follows in chunks; tail and err are valid once
	// the channel is closed.
	chunks chan []byte
	free   chan []byte
	tail   []byte
}

// digest reads the tree.
func (t *tarStream) digest(ctx context.Context) (*summary, error) {
	defer t.dirs.closeAll()
	g, ctx := errgroup.WithContext(ctx)
	ordered := make(chan *batch, batchQueue)
	work := make(chan *batch, batchQueue)
	w := newWalker(t, ctx, ordered, work)
	g.Go(func() error {
		defer close(ordered)
		defer close(work)
		return w.run()
	})
	for range readers {
		g.Go(func() error { return t.read(ctx, work) })
	}
	split, err := newSplitFile(t.spill)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	sum := &summary{}
	g.Go(func() error {
		sum.Size, err = t.consume(ctx, ordered, h, split)
		return err
	})
	if err := g.Wait(); err != nil {
		split.f.Close()
		return nil, err
	}
	end := make([]byte, w.pad+len(zeroes))
	if err := t.emit(h, end); err != nil {
		split.f.Close()
		return nil, err
	}
	if _, err := split.Write(appendSegment(nil, end, 2*w.count)); err != nil {
		split.f.Close()
		return nil, fmt.Errorf("writing the tar-split record: %w", err)
	}
	sum.Size += int64(len(end))
	sum.Digest = digest.NewDigest(digest.SHA256, h)
	sum.UIDs = slices.Sorted(maps.Keys(w.uids))
	sum.GIDs = slices.Sorted(maps.Keys(w.gids))
	sum.TarSplit = split.f
	sum.Members = w.count
	return sum, nil
}

func (t *tarStream) emit(h hash.Hash, p []byte) error {
	h.Write(p)
	if t.out == nil {
		return nil
	}
	_, err := t.out.Write(p)
	return err
}

// consume hashes the batches in order.
func (t *tarStream) consume(ctx context.Context, ordered <-chan *batch, h hash.Hash, split io.Writer) (int64, error) {
	var size int64
	put := func(p []byte) error {
		size += int64(len(p))
		return t.emit(h, p)
	}
	for b := range ordered {
		select {
		case <-b.done:
		case <-ctx.Done():
			return size, ctx.Err()
		}
		if b.err != nil {
			return size, b.err
		}
		if err := put(b.buf); err != nil {
			return size, err
		}
		if b.chunks != nil {
			for c := range b.chunks {
				if err := put(c); err != nil {
					return size, err
				}
				b.free <- c[:cap(c)]
			}
			if b.err != nil {
				return size, b.err
			}
			b.split = append(b.split, b.tail...)
		}
		if _, err := split.Write(b.split); err != nil {
			return size, fmt.Errorf("writing the tar-split record: %w", err)
		}
		recycle(b)
	}
	return size, nil
}

var buffers = sync.Pool{New: func() any { return new([2][]byte) }}

func recycle(b *batch) {
	if cap(b.buf) > 4*batchBytes {
		return
	}
	buffers.Put(&[2][]byte{b.buf[:0], b.split[:0]})
	b.buf, b.split = nil, nil
}

// read works through batches until there are no more.
func (t *tarStream) read(ctx context.Context, work <-chan *batch) error {
	for b := range work {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buffers.Get().(*[2][]byte)
		b.buf, b.split = slices.Grow(p[0], int(min(b.bytes, batchBytes))+len(b.entries)*(2*blockSize)+1), p[1]
		if len(b.entries) == 1 && b.entries[0].size > batchBytes {
			t.readLarge(ctx, b)
			continue
		}
		for i := range b.entries {
			if b.err = t.readEntry(b, i); b.err != nil {
				break
			}
		}
		close(b.done)
	}
	return nil
}

// readEntry appends one member to the batch.
func (t *tarStream) readEntry(b *batch, i int) error {
	e := &b.entries[i]
	position := 2 * (b.first + i)
	fd := -1
	if e.open {
		var err error
		if fd, err = t.openFile(e); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	if err := appendMember(b, e, position); err != nil {
		return err
	}
	var crc uint64
	if e.size > 0 {
		at := len(b.buf)
		var err error
		if b.buf, err = readContent(b.buf, fd, e); err != nil {
			return err
		}
		crc = crc64(0, b.buf[at:])
	}
	b.split = appendFile(b.split, e.name, e.size, crc, position+1)
	if e.dir != nil {
		t.dirs.release(e.dir)
	}
	return nil
}

// appendMember appends padding and header, and their segment.
func appendMember(b *batch, e *entry, position int) error {
	at := len(b.buf)
	b.buf = append(b.buf, zeroes[:e.pad]...)
	var err error
	if b.buf, err = e.appendHeader(b.buf); err != nil {
		return err
	}
	b.split = appendSegment(b.split, b.buf[at:], position)
	return nil
}

// openFile opens a regular file and reads its attributes.
func (t *tarStream) openFile(e *entry) (int, error) {
	fd, err := openRegular(e.dir.fd, e.base)
	if err != nil {
		return -1, fmt.Errorf("opening %q: %w", e.name, err)
	}
	var marks overlayMarks
	if e.xattrs, marks, err = readXattrs(fd, t.userXattr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("reading the extended attributes of %q: %w", e.name, err)
	}
	marks.apply(e)
	if marks.whiteout && e.size == 0 {
		e.makeWhiteout()
	}
	return fd, nil
}

// openRegular opens for reading without changing the access time; a FIFO
// that took the file's place does not block.
func openRegular(at int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_NOATIME, 0)
		if errors.Is(err, unix.EPERM) {
			fd, err = unix.Openat(at, name, flags, 0)
		}
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// readContent appends exactly the file's size; one byte more is asked for, to
// notice a file that has grown.
func readContent(buf []byte, fd int, e *entry) ([]byte, error) {
	at := len(buf)
	size := int(e.size)
	buf = slices.Grow(buf, size+1)[:at+size+1]
	n := 0
	for n < size {
		m, err := readRetry(fd, buf[at+n:])
		if err != nil {
			return buf[:at], fmt.Errorf("reading %q: %w", e.name, err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	if n != size {
		return buf[:at], changed(e)
	}
	return buf[:at+size], nil
}

func changed(e *entry) error {
	return fmt.Errorf("%q changed while the layer was read: a process of the step still runs, or somebody writes into the store", e.name)
}

func readRetry(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// writeBack makes the disk work on a file while it is hashed, so that the sync
// before an image is recorded finds less to do. sync_file_range(2) waits while
// the disk's queue is full, which is for as long as the file takes: the
// hashing does not wait for it.
func writeBack(fd int) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return
	}
	go func() {
		defer unix.Close(own)
		_ = unix.SyncFileRange(own, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}()
}

// readLarge reads a large file a few chunks ahead of the hashing.
func (t *tarStream) readLarge(ctx context.Context, b *batch) {
	e := &b.entries[0]
	fd, err := t.openFile(e)
	if err == nil {
		defer unix.Close(fd)
		writeBack(fd)
		err = appendMember(b, e, 2*b.first)
	}
	if err != nil {
		b.err = err
		close(b.done)
		return
	}
	b.chunks = make(chan []byte, chunkCount)
	b.free = make(chan []byte, chunkCount)
	for range chunkCount {
		b.free <- nil
	}
	close(b.done)
	defer close(b.chunks)
	var crc uint64
	var n int64
	for n < e.size {
		var c []byte
		select {
		case c = <-b.free:
		case <-ctx.Done():
			b.err = ctx.Err()
			return
		}
		if c == nil {
			c = make([]byte, chunkBytes)
		}
		m, err := readRetry(fd, c[:min(int64(chunkBytes), e.size-n)])
		if err != nil {
			b.err = fmt.Errorf("reading %q: %w", e.name, err)
			return
		}
		if m == 0 {
			break
		}
		crc = crc64(crc, c[:m])
		n += int64(m)
		b.chunks <- c[:m] // never blocks: there are as many places as chunks
	}
	var more [1]byte
	if m, err := readRetry(fd, more[:]); n != e.size || m != 0 || err != nil {
		b.err = changed(e)
		return
	}
	b.tail = appendFile(nil, e.name, e.size, crc, 2*b.first+1)
	t.dirs.release(e.dir)
}

// dirHandle is an open directory of the tree, in use by the walker and by the
// members that lie in it.
type dirHandle struct {
	fd   int
	refs atomic.Int32
}

// dirTable closes what an interrupted reading leaves open.
type dirTable struct {
	mu   sync.Mutex
	open map[*dirHandle]struct{}
}

func (d *dirTable) add(fd int) *dirHandle {
	h := &dirHandle{fd: fd}
	h.refs.Store(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[*dirHandle]struct{}{}
	}
	d.open[h] = struct{}{}
	return h
}

func (d *dirTable) release(h *dirHandle) {
	if h.refs.Add(-1) > 0 {
		return
	}
	d.mu.Lock()
	delete(d.open, h)
	d.mu.Unlock()
	unix.Close(h.fd)
}

func (d *dirTable) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.open {
		unix.Close(h.fd)
	}
	clear(d.open)
}
