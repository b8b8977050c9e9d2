package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// IDMap shows the files of a mount with other owners than they have on disk:
// what is c there is h here, where the user namespace has c as h
// (mount_setattr(2), MOUNT_ATTR_IDMAP). What is written is changed back.
type IDMap struct {
	// Namespace is the user namespace; it must not be this process's.
	Namespace *os.File
	// UID and GID are those that the namespace has as 0.
	UID, GID int
}

// Clone returns a detached mount of what dir is (O_PATH is enough), seen
// through the map. Errors wrap define.ErrUnsupported where the kernel, the
// file system or missing privileges forbid it.
func (m *IDMap) Clone(dir *os.File) (*os.File, error) {
	fd, err := m.clone(int(dir.Fd()), unix.AT_RECURSIVE)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, explainMap(dir.Name(), err)
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}

func (m *IDMap) clone(dir int, recursive uint) (int, error) {
	fd, err := unix.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|recursive)
	if err != nil {
		return -1, err
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(m.Namespace.Fd())})
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// explainMap says what is missing for an id-mapped mount.
func explainMap(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("map the owners of %s: %w: only root of the machine may do that; run strata as root, or leave the id map out: %w", name, err, define.ErrUnsupported)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("map the owners of %s: %w: its file system cannot (ext4, xfs and btrfs can, tmpfs since Linux 6.3; an overlay, NFS and FUSE cannot): "+
			"keep the store elsewhere (--root), or leave the id map out: %w", name, err, define.ErrUnsupported)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("map the owners of %s: %w: Linux 5.12 is needed, 5.19 for layers; leave the id map out: %w", name, err, define.ErrUnsupported)
	}
	return fmt.Errorf("map the owners of %s: %w", name, err)
}

// mountMapped mounts with each directory seen through the map. Overlay acts
// with the ids of its mounter, which must be such as the map has: this is done
// on a thread with other ids, which ends with the goroutine.
func mountMapped(o Options) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked
		f, err := mountAsMapped(o)
		done <- result{f, err}
	}()
	r := <-done
	runtime.KeepAlive(o)
	return r.f, r.err
}

// The ways of a mapped mount, by what the kernel can; tests begin with a
// later one.
const (
	mapDetached = iota // layers on detached mounts (Linux 6.15)
	mapAttached        // in the mounter's mount namespace
	mapLegacy          // and with mount(2), before Linux 6.8
)

var firstMapWay = mapDetached

func mountAsMapped(o Options) (*os.File, error) {
	m := &mappedDirs{o: o, idmap: o.Map}
	defer m.close()
	if err := m.open(); err != nil {
		return nil, err
	}
	if err := assume(o.Map.UID, o.Map.GID); err != nil {
		return nil, err
	}
	var err error
	for way := firstMapWay; way <= mapLegacy; way++ {
		if way == max(firstMapWay, mapAttached) {
			if e := m.attach(); e != nil {
				return nil, errors.Join(err, e)
			}
		}
		var f *os.File
		if way < mapLegacy {
			f, err = mountDetached(m.o)
		} else {
			f, err = legacyFile(mountHere(m.o))
		}
		if err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, errOldKernel) {
			return f, err
		}
	}
	return nil, err
}

func legacyFile(fd int, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

// mappedDirs are the directories of a mount on mapped mounts of their own.
type mappedDirs struct {
	o     Options
	idmap *IDMap
	trees []*os.File // the mapped mounts
	files []*os.File // what was opened in them
}

func (m *mappedDirs) close() {
	for _, f := range append(m.trees, m.files...) {
		f.Close()
	}
}

// tree maps one directory.
func (m *mappedDirs) tree(dir *os.File) (*os.File, error) {
	fd, err := m.idmap.clone(int(dir.Fd()), 0)
	if err != nil {
		return nil, explainMap("a layer", err)
	}
	f := os.NewFile(uintptr(fd), dir.Name())
	m.trees = append(m.trees, f)
	return f, nil
}

// open replaces the directories of m.o.
func (m *mappedDirs) open() error {
	given := m.o
	m.o.Map, m.o.Lowers = nil, nil
	for _, l := range given.Lowers {
		f, err := m.tree(l)
		if err != nil {
			return err
		}
		m.o.Lowers = append(m.o.Lowers, f)
	}
	if given.Upper == nil {
		return nil
	}
	// Overlay wants these two on one mount: that of a directory above both.
	above, names, err := together(given.Upper, given.Work)
	if err != nil {
		return err
	}
	defer above.Close()
	tree, err := m.tree(above)
	if err != nil {
		return err
	}
	if m.o.Upper, err = m.below(tree, names[0], given.Upper); err != nil {
		return err
	}
	m.o.Work, err = m.below(tree, names[1], given.Work)
	return err
}

// below opens name in tree, which must be the directory same.
func (m *mappedDirs) below(tree *os.File, name string, same *os.File) (*os.File, error) {
	fd, err := unix.Openat2(int(tree.Fd()), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("overlay mount: %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	m.files = append(m.files, f)
	var want, got unix.Stat_t
	if unix.Fstat(int(same.Fd()), &want) != nil || unix.Fstat(fd, &got) != nil || want.Dev != got.Dev || want.Ino != got.Ino {
		return nil, fmt.Errorf("overlay mount: %s is not to be found by its path: %w", name, define.ErrUnsupported)
	}
	return f, nil
}

// together opens the nearest directory that both lie in, and returns their
// names below it.
func together(a, b *os.File) (above *os.File, names [2]string, err error) {
	var paths [2]string
	for i, f := range []*os.File{a, b} {
		if paths[i], err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))); err != nil {
			return nil, names, fmt.Errorf("overlay mount: finding a directory: %w", err)
		}
	}
	dir := filepath.Dir(paths[0])
	for !strings.HasPrefix(paths[1], strings.TrimSuffix(dir, "/")+"/") {
		dir = filepath.Dir(dir)
	}
	for i, p := range paths {
		names[i] = strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
	}
	above, err = os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return above, names, err
}

// attach puts the mapped mounts into a mount namespace of this thread's own,
// which ends with it. /sys is as good a place as any, since nobody sees it.
func (m *mappedDirs) attach() error {
	fail := func(err error) error { return explain("a place for mapped layers", err, "") }
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fail(err)
	}
	const place = "/sys"
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fail(err)
	}
	if err := unix.Mount("tmpfs", place, "tmpfs", 0, "mode=0700"); err != nil {
		return fail(err)
	}
	for i, t := range m.trees {
		at := filepath.Join(place, strconv.Itoa(i))
		if err := os.Mkdir(at, 0o700); err != nil {
			return fail(err)
		}
		if err := unix.MoveMount(int(t.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fail(err)
		}
	}
	return nil
}

// assume makes files of this thread belong to others, and keeps its
// capabilities, of which that takes some.
func assume(uid, gid int) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("overlay mount: read capabilities: %w", err)
	}
	if err := unix.Setfsgid(gid); err != nil {
		return fmt.Errorf("overlay mount: take on group %d: %w", gid, err)
	}
	if err := unix.Setfsuid(uid); err != nil {
		return fmt.Errorf("overlay mount: take on user %d: %w", uid, err)
	}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("overlay mount: keep capabilities: %w", err)
	}
	return nil
}
