package layer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/stratabuild/strata/builder/store"
	"golang.org/x/sys/unix"
)

// Settling changes an upper directory between the end of a step and the
// beginning of what comes after it: everything that later steps would see is
// done here, before Freeze returns, so that what they see does not depend on
// how far the background has come.

// time applies Timestamp and Clamp.
func (o *FreezeOptions) time(t time.Time) time.Time {
	switch {
	case o.Timestamp != nil:
		return time.Unix(o.Timestamp.Unix(), 0)
	case o.Clamp != nil && t.After(*o.Clamp):
		return time.Unix(o.Clamp.Unix(), 0)
	}
	return t
}

// lowerView is what the layers below an upper show; it is mounted when it is
// first asked.
type lowerView struct {
	mount func() (*os.File, error) // nil: there is nothing below
	mu    sync.Mutex
	root  *os.File
}

// open returns the root, or nil when there is nothing below.
func (v *lowerView) open() (*os.File, error) {
	if v == nil || v.mount == nil {
		return nil, nil //nolint:nilnil // nothing below
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.root == nil {
		var err error
		if v.root, err = v.mount(); err != nil {
			return nil, fmt.Errorf("the layers below: %w", err)
		}
	}
	return v.root, nil
}

func (v *lowerView) close() {
	if v != nil && v.root != nil {
		v.root.Close()
		v.root = nil
	}
}

// stat describes name as the layers below show it; false: it is not there.
func (v *lowerView) stat(name string) (unix.Stat_t, bool, error) {
	var st unix.Stat_t
	root, err := v.open()
	if err != nil || root == nil {
		return st, false, err
	}
	dir, err := openDirAt(int(root.Fd()), path.Dir(name))
	if err != nil {
		return st, false, notThere(err)
	}
	defer unix.Close(dir)
	err = unix.Fstatat(dir, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err == nil, notThere(err)
}

func notThere(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// openDirAt opens a directory below root, following no symbolic link: name is
// a clean relative path.
func openDirAt(root int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	at, err := unix.Openat(root, ".", flags, 0)
	if err != nil || name == "." {
		return at, err
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := unix.Openat(at, part, flags, 0)
		unix.Close(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

// omitEmpty removes the unsafe paths below root that are empty directories or
// empty files and are not changes to something below. Directories above them
// keep their times; one that came into the upper only for what was removed is
// removed too.
func omitEmpty(root *os.File, paths []string, below *lowerView) error {
	clean := make([]string, 0, len(paths))
	for _, p := range paths {
		if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p != "" {
			clean = append(clean, p)
		}
	}
	// Deeper ones first: a directory is empty once what is in it is gone.
	slices.SortFunc(clean, func(a, b string) int { return strings.Compare(b, a) })
	for _, p := range slices.Compact(clean) {
		if err := omitOne(root, p, below); err != nil {
			return fmt.Errorf("leaving /%s out of the layer: %w", p, err)
		}
	}
	return nil
}

func omitOne(root *os.File, name string, below *lowerView) error {
	at, err := openDirAt(int(root.Fd()), path.Dir(name))
	if err != nil {
		return notThere(err)
	}
	defer unix.Close(at)
	removed, err := removeUnchanged(at, name, below, false)
	if err != nil || !removed || below == nil {
		return err
	}
	// What is above may be there for this only.
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		at, err := openDirAt(int(root.Fd()), path.Dir(dir))
		if err != nil {
			return notThere(err)
		}
		removed, err := removeUnchanged(at, dir, below, true)
		unix.Close(at)
		if err != nil || !removed {
			return err
		}
	}
	return nil
}

// removeUnchanged removes the empty object name, whose directory is at, if
// what is below has none of the name or one that looks the same; with
// copiedUp only in the latter case. The directory's times are kept.
func removeUnchanged(at int, name string, below *lowerView, copiedUp bool) (bool, error) {
	base := path.Base(name)
	var st unix.Stat_t
	if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, notThere(err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0) {
		return false, nil
	}
	if isDir {
		empty, err := emptyDirAt(at, base)
		if err != nil || !empty {
			return false, err
		}
	}
	lower, exists, err := below.stat(name)
	if err != nil {
		return false, err
	}
	if exists {
		same := lower.Mode == st.Mode && lower.Uid == st.Uid && lower.Gid == st.Gid &&
			(isDir || lower.Size == 0) && (!copiedUp || lower.Mtim == st.Mtim)
		if !same || !sameXattrs(at, base, below, name) {
			return false, nil
		}
	} else if copiedUp {
		return false, nil
	}
	return true, unlinkKeepingTime(at, base, isDir)
}

// sameXattrs compares the attributes that go into layers. An opaque directory
// is never the same as one below.
func sameXattrs(at int, base string, below *lowerView, name string) bool {
	own, marks, err := xattrsAt(at, base)
	if err != nil || marks.opaque {
		return false
	}
	root, err := below.open()
	if err != nil || root == nil {
		return false
	}
	dir, err := openDirAt(int(root.Fd()), path.Dir(name))
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	other, _, err := xattrsAt(dir, base)
	return err == nil && slices.Equal(own, other)
}

func xattrsAt(at int, base string) ([]xattr, overlayMarks, error) {
	fd, err := openRegular(at, base)
	if err != nil {
		return nil, overlayMarks{}, err
	}
	defer unix.Close(fd)
	x, marks, err := readXattrs(fd, false)
	if err == nil && !marks.opaque {
		_, marks, err = readXattrs(fd, true)
	}
	return x, marks, err
}

func emptyDirAt(at int, base string) (bool, error) {
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	dir := os.NewFile(uintptr(fd), base)
	defer dir.Close()
	names, _ := dir.Readdirnames(1)
	return len(names) == 0, nil
}

// unlinkKeepingTime removes a name and gives its directory the modification
// time back that it had.
func unlinkKeepingTime(at int, base string, isDir bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	err := unix.Unlinkat(at, base, flags)
	if errors.Is(err, unix.EPERM) {
		store.ClearFlags(at, base)
		err = unix.Unlinkat(at, base, flags)
	}
	if err != nil {
		return notThere(err)
	}
	return setTime(at, st.Mtim)
}

// timespec converts without the overflow of nanoseconds since 1970; its fields
// are narrower on 32-bit machines.
func timespec(sec, nsec int64) (ts unix.Timespec) {
	ts.Sec, ts.Nsec = narrow(ts.Sec, sec), narrow(ts.Nsec, nsec)
	return ts
}

func narrow[T int32 | int64](_ T, v int64) T { return T(v) }

// setTime sets the modification time of an open directory.
func setTime(fd int, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	_, _, errno := syscall.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hideBottom takes out of the upper what the step did to things that only the
// bottom directory has: they are shown to one step and belong to no layer.
func hideBottom(upper, bottom *os.File, below *lowerView) error {
	b, err := openDirAt(int(bottom.Fd()), ".")
	if err != nil {
		return fmt.Errorf("the step's mount points: %w", err)
	}
	u, err := openDirAt(int(upper.Fd()), ".")
	if err != nil {
		unix.Close(b)
		return err
	}
	return hideDir(u, b, "", below)
}

// hideDir does so in one directory, and closes both descriptors.
func hideDir(u, b int, dir string, below *lowerView) error {
	defer unix.Close(u)
	bottom := os.NewFile(uintptr(b), "bottom")
	defer bottom.Close()
	names, err := bottom.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("the step's mount points: %w", err)
	}
	for _, base := range names {
		if err := hideOne(u, b, dir+base, below); err != nil {
			return fmt.Errorf("/%s%s: %w", dir, base, err)
		}
	}
	return nil
}

func hideOne(u, b int, name string, below *lowerView) error {
	base := path.Base(name)
	var st, bst unix.Stat_t
	if err := unix.Fstatat(u, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return notThere(err) // untouched, as nearly always
	}
	if err := unix.Fstatat(b, base, &bst, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		if st.Rdev != 0 {
			return nil
		}
	case unix.S_IFREG:
		if st.Size != 0 || bst.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
	case unix.S_IFDIR:
		if bst.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		ufd, err := unix.Openat(u, base, flags, 0)
		if err != nil {
			return err
		}
		bfd, err := unix.Openat(b, base, flags, 0)
		if err != nil {
			unix.Close(ufd)
			return err
		}
		if err := hideDir(ufd, bfd, name+"/", below); err != nil {
			return err
		}
		if empty, err := emptyDirAt(u, base); err != nil || !empty {
			return err
		}
	default:
		return nil
	}
	if _, exists, err := below.stat(name); err != nil || exists {
		return err
	}
	return unlinkKeepingTime(u, base, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// settleTimes gives everything in the tree the modification time that the
// tar stream will say, as what compares the two expects; sockets go first,
// because their removal would change a directory's time again.
func settleTimes(root *os.File, o *FreezeOptions) error {
	if o.Timestamp == nil && o.Clamp == nil {
		return nil
	}
	fd, err := openDirAt(int(root.Fd()), ".")
	if err != nil {
		return fmt.Errorf("setting times: %w", err)
	}
	return newLister().settleDir(fd, "", o)
}

// settleDir closes fd.
func (l lister) settleDir(fd int, dir string, o *FreezeOptions) error {
	defer unix.Close(fd)
	names, err := l.names(fd)
	if err != nil {
		return fmt.Errorf("setting times: listing /%s: %w", dir, err)
	}
	var st unix.Statx_t
	for _, name := range names {
		base := name[:len(name)-1]
		if err := statx(fd, name, &st); err != nil {
			return fmt.Errorf("setting times: /%s%s: %w", dir, base, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFSOCK:
			if err := unlinkKeepingTime(fd, base, false); err != nil {
				return fmt.Errorf("removing the socket /%s%s: %w", dir, base, err)
			}
			continue
		case unix.S_IFDIR:
			sub, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("setting times: /%s%s: %w", dir, base, err)
			}
			if err := l.settleDir(sub, dir+base+"/", o); err != nil {
				return err
			}
		}
		was := time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))
		if t := o.time(was); !t.Equal(was) {
			ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, timespec(t.Unix(), int64(t.Nanosecond()))}
			err := unix.UtimesNanoAt(fd, base, ts, unix.AT_SYMLINK_NOFOLLOW)
			if errors.Is(err, unix.EPERM) {
				store.ClearFlags(fd, base)
				err = unix.UtimesNanoAt(fd, base, ts, unix.AT_SYMLINK_NOFOLLOW)
			}
			if err != nil {
				return fmt.Errorf("setting the time of /%s%s: %w", dir, base, err)
			}
		}
	}
	return nil
}
