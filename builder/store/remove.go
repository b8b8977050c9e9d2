package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// RemoveTree removes name and all below it, and returns the bytes (disk
// blocks) that its files took. name is relative to dir, or any path when dir
// is nil. What does not exist is no error.
//
// It goes by descriptor, follows no symbolic link and stops with an error at a
// mount point, whatever is mounted there. Directories of mode 0 are opened by
// giving them 0700, immutable and append-only flags are cleared, and trees
// deeper than the limit on open files are flattened as it goes.
func RemoveTree(dir *os.File, name string) (int64, error) {
	at := unix.AT_FDCWD
	if dir != nil {
		at = int(dir.Fd())
	}
	r := remover{}
	err := r.remove(at, name, 0)
	for err == nil && len(r.deep) > 0 {
		next := r.deep[len(r.deep)-1]
		r.deep = r.deep[:len(r.deep)-1]
		err = r.remove(at, next, 0)
	}
	if err != nil {
		return r.bytes, fmt.Errorf("removing %s: %w", name, err)
	}
	return r.bytes, nil
}

// maxRemoveDepth bounds the descriptors that a removal holds.
const maxRemoveDepth = 64

type remover struct {
	bytes int64
	at    int      // where deep trees are moved to: beside the tree's root
	base  string   // and under which name
	deep  []string // subtrees that were moved there
	moved int
}

func (r *remover) remove(at int, name string, depth int) error {
	if depth == 0 {
		r.at, r.base = at, name
	}
	var st unix.Statx_t
	err := unix.Statx(at, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_NLINK|unix.STATX_BLOCKS, &st)
	if err != nil {
		return ignoreMissing(err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 && depth > 0 {
		return fmt.Errorf("%s is a mount point: unmount it first: %w", name, define.ErrInUse)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if st.Nlink == 1 {
			r.bytes += int64(st.Blocks) * 512
		}
		return r.unlink(at, name, 0)
	}
	if depth > maxRemoveDepth {
		r.moved++
		to := filepath.Join(filepath.Dir(r.base), ".deep-"+strconv.Itoa(r.moved)+"-"+filepath.Base(r.base))
		if err := unix.Renameat(at, name, r.at, to); err == nil {
			r.deep = append(r.deep, to)
			return nil
		}
	}
	if err := r.empty(at, name, depth); err != nil {
		return err
	}
	return r.unlink(at, name, unix.AT_REMOVEDIR)
}

// empty removes all that is in the directory name.
func (r *remover) empty(at int, name string, depth int) error {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.EACCES) {
		if err := unix.Fchmodat(at, name, 0o700, 0); err != nil {
			return err
		}
		fd, err = unix.Openat(at, name, flags, 0)
	}
	if err != nil {
		return ignoreMissing(err)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	made := false
	for {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			err := r.remove(fd, n, depth+1)
			if errors.Is(err, unix.EACCES) && !made {
				made = true
				if unix.Fchmod(fd, 0o700) == nil {
					err = r.remove(fd, n, depth+1)
				}
			}
			if err != nil {
				return err
			}
		}
		if len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// unlink removes one name; when that is not permitted, it takes the immutable
// and append-only flags off the object and off its directory and tries again.
func (r *remover) unlink(at int, name string, flags int) error {
	err := unix.Unlinkat(at, name, flags)
	if errors.Is(err, unix.EPERM) {
		ClearFlags(at, name)
		if at != unix.AT_FDCWD {
			clearFlags(at)
		}
		err = unix.Unlinkat(at, name, flags)
	}
	return ignoreMissing(err)
}

// ClearFlags takes the immutable and append-only flags (chattr +i, +a) off a
// regular file or directory of the directory at; best effort. Other objects
// are left alone: opening a device could do something.
func ClearFlags(at int, name string) {
	var st unix.Stat_t
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	clearFlags(fd)
	unix.Close(fd)
}

// clearFlags takes the flags off that forbid changes (chattr +i, +a).
func clearFlags(fd int) {
	const guard = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND // the values of FS_IMMUTABLE_FL, FS_APPEND_FL
	f, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && f&guard != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(f&^guard))
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
