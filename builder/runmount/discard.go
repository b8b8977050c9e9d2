package runmount

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// Discarding makes a writable tree over lower, a directory on a mount of this
// process's namespace, which stays as it is. What is written lies below name
// in parent, a directory of ours; owners are shown through idmap, if it is not
// nil; remove, which is to be called when nothing
// uses the tree any more, removes it. parent must stay open until then.
//
// Errors wrap define.ErrUnsupported where overlay mounts do not work: copy
// instead.
func Discarding(parent *os.File, name string, lower *os.File, userXattr bool, idmap *overlay.IDMap) (root *os.File, remove func() error, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(lower.Fd()), &st); err != nil {
		return nil, nil, fmt.Errorf("look at %s: %w", lower.Name(), err)
	}
	a := overlay.Attr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
	if userXattr && (unmapped(st.Uid) || unmapped(st.Gid)) {
		a.UID, a.GID = 0, 0
	}
	s, err := overlay.NewScratch(parent, name, a)
	if err != nil {
		return nil, nil, err
	}
	root, err = overlay.Mount(overlay.Options{Lowers: []*os.File{lower}, Upper: s.Upper, Work: s.Work, UserXattr: userXattr, Map: idmap})
	s.Close()
	if err != nil {
		return nil, nil, errors.Join(err, s.RemoveAll())
	}
	return root, s.RemoveAll, nil
}

// unmapped reports the id that stands for those which a user namespace does
// not map (/proc/sys/kernel/overflowuid).
func unmapped(id uint32) bool { return id == 65534 }

// Copy copies a selection with one source to name below parent, a directory
// of ours, and returns the copy: a directory with the source's content, or the
// file. remove removes it.
func Copy(ctx context.Context, s *copier.Selection, parent *os.File, name string, ignoreChown bool) (f *os.File, remove func() error, err error) {
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the copy %s: %w", name, store.Explain(parent.Name(), err))
	}
	remove = func() error {
		_, err := store.RemoveTree(parent, name)
		return err
	}
	f, err = copyInto(ctx, s, parent, name, ignoreChown)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return f, remove, nil
}

func copyInto(ctx context.Context, s *copier.Selection, parent *os.File, name string, ignoreChown bool) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the copy %s: %w", name, err)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	root, err := copier.NewRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	const copied = "/c"
	if err := s.Put(ctx, root, copier.Put{Dest: copied, IgnoreChownErrors: ignoreChown}); err != nil {
		return nil, err
	}
	// A directory of which everything is left out leaves nothing.
	if _, err := root.Stat(copied, false); errors.Is(err, os.ErrNotExist) {
		if _, err := root.MkdirAll(copied, copier.Mkdir{}); err != nil {
			return nil, err
		}
	}
	return root.Open(copied, unix.O_PATH|unix.O_NOFOLLOW)
}
