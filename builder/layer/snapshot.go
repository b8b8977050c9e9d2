package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Snapshot returns a layer on top of parent whose content is that of a
// container's layer now; the container goes on without it. Each file is
// copied once (shared where the file system can) and read once for its
// digest, from the copy: what the container does meanwhile cannot make the
// layer and its digest differ.
func (s *Space) Snapshot(ctx context.Context, parent *Layer, id string, o FreezeOptions) (*Layer, error) {
	k, err := s.kept(parent, id)
	if err != nil {
		return nil, err
	}
	defer k.close()
	if n := parent.Depth() + 1; n > overlay.MaxLowers {
		return nil, tooMany(n)
	}
	if k.special {
		return s.snapshotManaged(ctx, parent, id, o)
	}
	_, dir, err := s.ws.Dir(ctx)
	if err != nil {
		return nil, err
	}
	attr, err := rootAttr([]*os.File{k.upper})
	if err != nil {
		return nil, err
	}
	scratch, err := overlay.NewScratch(dir, s.step(), attr)
	if err != nil {
		return nil, err
	}
	if err := s.copyInto(ctx, scratch.Upper, k.upper, parent, o); err != nil {
		scratch.Close()
		return nil, errors.Join(fmt.Errorf("copying the container's changes: %w", err), scratch.RemoveAll())
	}
	return s.commitUpper(ctx, parent, scratch, o), nil
}

func (s *Space) copyInto(ctx context.Context, upper, from *os.File, parent *Layer, o FreezeOptions) error {
	m := s.newMerger(ctx, parent, &o)
	m.copies = newCopies(upper)
	defer m.below.close()
	if err := m.apply(from, upper); err != nil {
		return err
	}
	return settleTimes(upper, &o)
}

func (s *Space) snapshotManaged(ctx context.Context, parent *Layer, id string, o FreezeOptions) (*Layer, error) {
	below, err := parent.Wait(ctx)
	if err != nil {
		return nil, err
	}
	l := &Layer{parent: parent, depth: parent.Depth() + 1, done: make(chan struct{})}
	export := func(w io.Writer) error { return s.export(ctx, below.ID, id, o, w) }
	if below.ID == define.LayerID("") { // the library takes no base for the parent
		export = func(w io.Writer) error {
			v, err := s.ViewOn(ctx, nil, id)
			if err != nil {
				return err
			}
			defer v.Close()
			return s.exportRoot(ctx, v.root, o, w)
		}
	}
	s.commits.Go(func() {
		defer close(l.done)
		l.info, l.err = s.commitStream(ctx, parent, export)
	})
	return l, nil
}

type inode struct {
	dev uint64
	ino uint64
}

// copies makes a merger copy files in place of linking them, with several
// goroutines. Names of one file stay names of one file.
type copies struct {
	root *os.File
	// slots holds a token for each further goroutine.
	slots chan struct{}

	mu    sync.Mutex
	first map[inode]string // where a file with several names was copied to
}

// copyBranches is how many directories are copied at once: making files is
// bound by the kernel's file system code.
const copyBranches = 2

func newCopies(root *os.File) *copies {
	return &copies{root: root, slots: make(chan struct{}, copyBranches-1), first: map[inode]string{}}
}

// branches are directories that are copied beside the one they lie in.
type branches struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (b *branches) wait() error {
	b.wg.Wait()
	return b.err
}

// descend merges a directory, on a goroutine of its own when one is free.
func (m *merger) descend(src, dst int, dir string, parent *branches) error {
	if m.copies == nil {
		return m.merge(src, dst, dir)
	}
	select {
	case m.copies.slots <- struct{}{}:
	default:
		return m.merge(src, dst, dir)
	}
	branch := &merger{ctx: m.ctx, options: m.options, own: m.own, below: m.below, copies: m.copies, links: m.links, lister: newLister()}
	parent.wg.Go(func() {
		err := branch.merge(src, dst, dir)
		<-m.copies.slots
		if err != nil {
			parent.mu.Lock()
			parent.err = errors.Join(parent.err, err)
			parent.mu.Unlock()
		}
	})
	return nil
}

// copy puts a copy of a non-directory in place, or one more name of a copy.
func (m *merger) copy(src, dst int, base, name string, st *unix.Statx_t) error {
	c := m.copies
	if st.Nlink < 2 {
		return m.copyOne(src, dst, base, st)
	}
	c.mu.Lock()
	defer c.mu.Unlock() // the copy is complete before another name is made
	key := inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	was, ok := c.first[key]
	if !ok {
		c.first[key] = name
		return m.copyOne(src, dst, base, st)
	}
	at, err := openDirAt(int(c.root.Fd()), path.Dir(was))
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return unix.Linkat(at, path.Base(was), dst, base, 0)
}

// smallCopy is the size up to which a file is read and written in one go:
// copy_file_range(2) costs more than that for small ones.
const smallCopy = 64 << 10

func (m *merger) copyOne(src, dst int, base string, st *unix.Statx_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > smallCopy {
		return copyObject(src, dst, base, st)
	}
	if m.buf == nil {
		m.buf = make([]byte, smallCopy+1)
	}
	in, err := openRegular(src, base)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	n, err := readAll(in, m.buf)
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	if n != int(st.Size) {
		return fmt.Errorf("it changed while it was copied: %w", define.ErrInUse)
	}
	out, err := unix.Openat(dst, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	if err := writeAll(out, m.buf[:n]); err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	return copyMetadata(in, out, st)
}

func readAll(fd int, buf []byte) (n int, err error) {
	for n < len(buf) {
		got, err := unix.Read(fd, buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, err
		case got == 0:
			return n, nil
		}
		n += got
	}
	return n, nil
}

func writeAll(fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Write(fd, buf)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		buf = buf[max(n, 0):]
	}
	return nil
}
