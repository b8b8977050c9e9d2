package copier

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"sync/atomic"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// smallFile is the size up to which a file is read and written in one call
// each; it is also the buffer of a worker.
const smallFile = 256 << 10

// rangeChunk is how much copy_file_range(2) is asked for at once: cancelling
// and progress wait for no more.
const rangeChunk = 64 << 20

// copySupport is what was learnt about the two file systems of a Put.
type copySupport struct {
	noClone, noRange atomic.Bool
	// checked: the owner and mode that open(2) gives were compared once; odd:
	// they are not what POSIX says and are read back each time.
	checked, odd atomic.Bool
}

// contentCopier copies the bytes of regular files.
type contentCopier struct {
	pt    *putter
	buf   []byte
	flush writeBack
}

// writeBack makes the disk work on what was copied while more is copied, so
// that a later sync finds less to do. sync_file_range(2) waits while the
// disk's queue is full; the copying does not.
type writeBack struct{ ranges chan [2]int64 }

// add asks for a range of the file dst.
func (w *writeBack) add(dst int, off, n int64) {
	if w.ranges == nil {
		own, err := unix.FcntlInt(uintptr(dst), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return
		}
		w.ranges = make(chan [2]int64, 64)
		go func(ranges <-chan [2]int64) {
			defer unix.Close(own)
			for r := range ranges {
				_ = unix.SyncFileRange(own, r[0], r[1], unix.SYNC_FILE_RANGE_WRITE)
			}
		}(w.ranges)
	}
	select {
	case w.ranges <- [2]int64{off, n}:
	default: // far behind: a luxury left out
	}
}

// end is called when the file is complete.
func (w *writeBack) end() {
	if w.ranges != nil {
		close(w.ranges)
		w.ranges = nil
	}
}

// content copies what src holds, st.Size bytes, to the empty file dst.
func (c *contentCopier) content(src, dst int, st *unix.Stat_t, from, to string) error {
	if st.Size == 0 {
		return nil
	}
	// Looking for holes is worth its calls from a few blocks on.
	if st.Size < smallFile && (st.Size < 64<<10 || st.Blocks*512 >= st.Size) {
		return c.small(src, dst, st.Size, from, to)
	}
	defer c.flush.end()
	if !c.clone(src, dst) {
		if err := c.extents(src, dst, st, from, to); err != nil {
			return err
		}
	} else {
		c.progress(st.Size)
	}
	var after unix.Stat_t
	if err := at.Stat(src, &after); err != nil {
		return fail("stat", from, err)
	}
	if after.Size != st.Size || after.Mtim != st.Mtim {
		return changed(from)
	}
	return nil
}

// hashed copies like content and returns the digest of what was copied. Holes
// stay holes: they are hashed as the zeros they read as.
func (c *contentCopier) hashed(src, dst int, st *unix.Stat_t, from, to string) (sum [sha256.Size]byte, err error) {
	if st.Size == 0 {
		return sha256.Sum256(nil), nil
	}
	if st.Size < smallFile && (st.Size < 64<<10 || st.Blocks*512 >= st.Size) {
		if err := c.small(src, dst, st.Size, from, to); err != nil {
			return sum, err
		}
		return sha256.Sum256(c.buf[:st.Size]), nil
	}
	// The kernel copies; hashing reads the same pages beside it.
	done := make(chan error, 1)
	go func() { done <- c.content(src, dst, st, from, to) }()
	h := sha256.New()
	err = hashFile(c.pt.ctx, h, src, st.Size, from)
	if err := errors.Join(<-done, err); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// hashFile hashes size bytes from the start of a file, without its offset.
func hashFile(ctx context.Context, h hash.Hash, src int, size int64, from string) error {
	buf := make([]byte, smallFile)
	for off := int64(0); off < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Pread(src, buf[:min(size-off, int64(len(buf)))], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fail("read", from, err)
		}
		if n == 0 {
			return changed(from)
		}
		h.Write(buf[:n])
		off += int64(n)
	}
	return nil
}

func (c *contentCopier) progress(n int64) {
	if c.pt.p.Progress == nil {
		return
	}
	c.pt.mu.Lock()
	defer c.pt.mu.Unlock()
	c.pt.p.Progress(n)
}

func (c *contentCopier) small(src, dst int, size int64, from, to string) error {
	n, err := readFull(src, c.buf, size)
	if err != nil {
		return fail("read", from, err)
	}
	if int64(n) != size {
		return changed(from)
	}
	if err := writeFull(dst, c.buf[:n]); err != nil {
		return fail("write", to, err)
	}
	c.progress(size)
	return nil
}

func writeFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// clone shares the blocks where the file system can (btrfs, XFS).
func (c *contentCopier) clone(src, dst int) bool {
	if c.pt.copies.noClone.Load() {
		return false
	}
	if unix.IoctlFileClone(dst, src) == nil {
		return true
	}
	c.pt.copies.noClone.Store(true)
	return false
}

// extents copies data and leaves holes out.
func (c *contentCopier) extents(src, dst int, st *unix.Stat_t, from, to string) error {
	if st.Blocks*512 >= st.Size {
		return c.span(src, dst, 0, st.Size, from, to)
	}
	end := int64(0) // of what dst holds
	for off := int64(0); off < st.Size; {
		data, err := unix.Seek(src, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		if err != nil {
			return c.span(src, dst, off, st.Size-off, from, to)
		}
		hole, err := unix.Seek(src, data, unix.SEEK_HOLE)
		if err != nil {
			return fail("read", from, err)
		}
		hole = min(hole, st.Size)
		if data >= hole {
			break
		}
		if err := c.span(src, dst, data, hole-data, from, to); err != nil {
			return err
		}
		off, end = hole, hole
	}
	if end < st.Size {
		if err := at.Retry(func() error { return unix.Ftruncate(dst, st.Size) }); err != nil {
			return fail("write", to, err)
		}
	}
	return nil
}

// span copies n bytes at off.
func (c *contentCopier) span(src, dst int, off, n int64, from, to string) error {
	for n > 0 && !c.pt.copies.noRange.Load() {
		if c.pt.ctx.Err() != nil {
			return context.Cause(c.pt.ctx)
		}
		in, out := off, off
		done, err := unix.CopyFileRange(src, &in, dst, &out, int(min(n, rangeChunk)), 0)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EFBIG, unix.EROFS:
			return fail("copy "+show(from)+" to", to, err)
		default:
			// Not between these file systems (EXDEV before Linux 5.19), or
			// not at all.
			c.pt.copies.noRange.Store(true)
			continue
		}
		if done == 0 {
			return changed(from)
		}
		c.flush.add(dst, off, int64(done))
		off, n = off+int64(done), n-int64(done)
		c.progress(int64(done))
	}
	return c.slow(src, dst, off, n, from, to)
}

func (c *contentCopier) slow(src, dst int, off, n int64, from, to string) error {
	for n > 0 {
		if c.pt.ctx.Err() != nil {
			return context.Cause(c.pt.ctx)
		}
		got, err := unix.Pread(src, c.buf[:min(n, int64(len(c.buf)))], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fail("read", from, err)
		}
		if got == 0 {
			return changed(from)
		}
		for b, pos := c.buf[:got], off; len(b) > 0; {
			w, err := unix.Pwrite(dst, b, pos)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fail("write", to, err)
			}
			b, pos = b[w:], pos+int64(w)
		}
		off, n = off+int64(got), n-int64(got)
		c.progress(int64(got))
	}
	return nil
}
