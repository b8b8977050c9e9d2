package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// remote are the file systems that may refuse what every disk's does, with
// their names (statfs(2)). Others are not tried: this is asked by each command.
var remote = map[int64]string{
	unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p", unix.RAMFS_MAGIC: "ramfs", 0xfe534d42: "smb2", 0xff534d42: "cifs",
	0x517b: "smb", unix.AFS_SUPER_MAGIC: "afs", 0x00c36400: "ceph", 0x0bd00bd0: "lustre", 0x47504653: "gpfs",
	0x6a656a63: "virtiofs", 0x786f4256: "vboxsf", 0xbacbacbc: "vmhgfs", 0x19830326: "fhgfs", 0x1161970: "gfs2",
}

// unfit returns why the files of images cannot be kept in a directory as they
// are, as on homes that a server has: the files of a user's subordinate ids
// cannot be made there, or, when there is one id only, the attributes that
// remember owners are not kept. dir exists; nil is also what is not known.
func unfit(dir string, single bool) error {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return nil
	}
	kind := remote[int64(uint32(st.Type))]
	if kind == "" || os.Geteuid() != 0 {
		return nil
	}
	f, err := scratch(dir)
	if err != nil {
		return nil //nolint: nilerr // what it is will be said when the store is made
	}
	defer f.Close()
	fd := int(f.Fd())
	var owner unix.Stat_t
	if err := unix.Fchmod(fd, 0o640); err != nil {
		return fmt.Errorf("its file system (%s) gives files no other mode: %w", kind, err)
	}
	switch {
	case single:
		if err := unix.Fsetxattr(fd, "user.strata", []byte("x"), 0); err != nil {
			return fmt.Errorf("its file system (%s) keeps no extended attributes, in which other owners are remembered: %w", kind, err)
		}
	default:
		err := unix.Fchown(fd, 1, 1)
		if err == nil && unix.Fstat(fd, &owner) == nil && owner.Uid != 1 {
			err = unix.EPERM // said to be done, and not done
		}
		if err != nil {
			return fmt.Errorf("its file system (%s) gives files no other owner: %w", kind, err)
		}
	}
	// The kernel mounts no overlay on these, and what is copied there is
	// executed there.
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("its file system (%s) is mounted with noexec", kind)
	}
	return nil
}

// scratch makes a file without a name.
func scratch(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, ".strata-"); err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// nearest is the nearest directory at or above path that exists.
func nearest(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
