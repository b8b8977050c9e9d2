package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

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
	m.copies = &copies{root: upper, first: map[inode]string{}}
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

// copies makes a merger copy files in place of linking them. Names of one
// file stay names of one file.
type copies struct {
	root  *os.File
	first map[inode]string // where a file with several names was copied to
}

// link gives an earlier copy of the same file a further name; false: there is
// none yet.
func (c *copies) link(dst int, base, name string, st *unix.Statx_t) (bool, error) {
	if st.Nlink < 2 {
		return false, nil
	}
	key := inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	was, ok := c.first[key]
	if !ok {
		c.first[key] = name
		return false, nil
	}
	at, err := openDirAt(int(c.root.Fd()), path.Dir(was))
	if err != nil {
		return false, err
	}
	defer unix.Close(at)
	return true, unix.Linkat(at, path.Base(was), dst, base, 0)
}
