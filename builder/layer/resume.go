package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
	"golang.org/x/sys/unix"
)

// A container of containers/storage has a writable layer of its own, which
// outlives the process. Resume, ViewOn and Snapshot work on such a layer; the
// container keeps it and what is below it from being removed, so that nothing
// needs a pin.

// Resume makes a writable root of a container's layer, which the store knows
// as id, on top of parent. What is changed stays in that layer: Keep ends the
// writing, Discard undoes nothing. Freeze is not for it (see Snapshot).
//
// When the layer is mounted by the store in this mount namespace (the mount
// command), the root is that mount: two overlay mounts of one upper directory
// would not see each other's changes.
func (s *Space) Resume(ctx context.Context, parent *Layer, id string, o BeginOptions) (*Working, error) {
	k, err := s.kept(parent, id)
	if err != nil {
		return nil, err
	}
	w := &Working{space: s, ctx: ctx, parent: parent, kept: k}
	switch {
	case k.special:
		if _, err := s.st.Raw().Mount(id, ""); err != nil {
			return nil, k.explain("mounting", err)
		}
		k.counted = true
		w.root, err = k.openMounted(false)
	case k.mounted():
		w.root, err = k.openMounted(false)
	default:
		err = w.beginKept(ctx, k, o)
	}
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	s.mu.Lock()
	s.working[w] = struct{}{}
	s.mu.Unlock()
	return w, nil
}

// kept is a container's layer in use.
type kept struct {
	space *Space
	id    string
	// special: the store's driver must mount it.
	special bool
	counted bool     // we mounted it
	upper   *os.File // its diff directory, O_PATH; nil when special
}

func (s *Space) kept(parent *Layer, id string) (*kept, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	k := &kept{space: s, id: id}
	if l, err := s.st.Raw().Layer(id); err != nil {
		return nil, k.explain("finding", err)
	} else if len(l.UIDMap) > 0 || len(l.GIDMap) > 0 {
		k.special = true
	}
	if base := parent.base(); base != nil {
		s.ws.Hold(base.info.ID)
		if ok, _ := s.st.ZeroCopy(); ok {
			if err := s.openDirs(base); err != nil {
				return nil, err
			}
		}
	}
	if k.special = k.special || s.viaStorage(parent); k.special {
		return k, nil
	}
	home, err := s.st.LayerHome(id)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(home, "diff")
	if k.upper, err = os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, k.explain("opening", err)
	}
	return k, nil
}

func (k *kept) explain(doing string, err error) error {
	return fmt.Errorf("%s the container's layer %s: %w", doing, k.id, store.Explain(k.space.st.Raw().GraphRoot(), err))
}

// mounted reports whether the store's mount of the layer is visible here.
func (k *kept) mounted() bool {
	var at, home unix.Stat_t
	if unix.Stat(k.mountPoint(), &at) != nil || unix.Fstat(int(k.upper.Fd()), &home) != nil {
		return false
	}
	return at.Dev != home.Dev
}

// mountPoint is where containers/storage's overlay driver mounts the layer.
func (k *kept) mountPoint() string {
	return filepath.Join(filepath.Dir(k.upper.Name()), "merged")
}

// openMounted gives a root of the store's own mount.
func (k *kept) openMounted(readOnly bool) (*os.File, error) {
	if k.upper != nil {
		return openRoot(k.mountPoint(), readOnly)
	}
	l, err := k.space.st.Raw().Layer(k.id)
	if err != nil {
		return nil, k.explain("finding", err)
	}
	return openRoot(l.MountPoint, readOnly)
}

func (w *Working) beginKept(ctx context.Context, k *kept, o BeginOptions) error {
	_, dir, err := w.space.ws.Dir(ctx)
	if err != nil {
		return err
	}
	upper, err := reopen(k.upper)
	if err != nil {
		return k.explain("opening", err)
	}
	// The work directory is ours and fresh: one that a volatile mount has used
	// can be mounted by nobody else.
	scratch, err := overlay.Around(dir, w.space.step(), upper)
	if err != nil {
		upper.Close()
		return err
	}
	return w.mount(ctx, scratch, w.space.lowers(w.parent), o)
}

func (k *kept) close() error {
	var err error
	if k.counted {
		k.counted = false
		_, err = k.space.st.Raw().Unmount(k.id, false)
	}
	if k.upper != nil {
		err = errors.Join(err, k.upper.Close())
		k.upper = nil
	}
	return err
}

// Keep ends the writing to a root that Resume made; the changes stay in the
// container's layer. Of o, Omit alone is looked at.
func (w *Working) Keep(ctx context.Context, o FreezeOptions) error {
	err := errEnded
	w.end.Do(func() {
		err = w.keep(ctx, FreezeOptions{Omit: o.Omit})
		err = errors.Join(err, w.discard())
		w.forget()
	})
	return err
}

func (w *Working) keep(ctx context.Context, o FreezeOptions) error {
	if w.scratch == nil {
		return omitEmpty(w.root, o.Omit, nil)
	}
	if err := w.root.Close(); err != nil {
		return fmt.Errorf("unmounting the container's root: %w", err)
	}
	w.root = nil
	return w.settle(ctx, w.scratch.Upper, &o)
}

// ViewOn makes a container's root readable as it is now.
func (s *Space) ViewOn(ctx context.Context, parent *Layer, id string) (*View, error) {
	k, err := s.kept(parent, id)
	if err != nil {
		return nil, err
	}
	v := &View{space: s, top: parent, kept: k}
	switch {
	case k.special:
		if _, err = s.st.Raw().Mount(id, ""); err != nil {
			err = k.explain("mounting", err)
			break
		}
		k.counted = true
		v.root, err = k.openMounted(true)
	case k.mounted():
		v.root, err = k.openMounted(true)
	default:
		v.root, err = s.mountLowers(ctx, append([]*os.File{k.upper}, s.lowers(parent)...))
	}
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	s.mu.Lock()
	s.views[v] = struct{}{}
	s.mu.Unlock()
	return v, nil
}

// Changed reports whether a container's layer holds any change. Where only
// the store's driver could tell, it is true.
func (s *Space) Changed(parent *Layer, id string) (bool, error) {
	k, err := s.kept(parent, id)
	if err != nil {
		return false, err
	}
	defer k.close()
	if k.special {
		return true, nil
	}
	fd, err := openDirAt(int(k.upper.Fd()), ".")
	if err != nil {
		return false, k.explain("reading", err)
	}
	defer unix.Close(fd)
	names, err := newLister().names(fd)
	return len(names) > 0, err
}
