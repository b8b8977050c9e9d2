package layer

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func timeOf(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// copyObject copies a non-directory with all that a layer keeps of it.
func copyObject(src, dst int, base string, st *unix.Statx_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return copyFile(src, dst, base, st)
	case unix.S_IFLNK:
		target, err := readlink(src, base, int(st.Size))
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, dst, base); err != nil {
			return err
		}
	default:
		dev := unix.Mkdev(st.Rdev_major, st.Rdev_minor)
		if err := unix.Mknodat(dst, base, uint32(st.Mode&unix.S_IFMT)|0o600, int(dev)); err != nil {
			return err
		}
		if err := unix.Fchmodat(dst, base, uint32(st.Mode&0o7777), 0); err != nil {
			return err
		}
	}
	if err := unix.Fchownat(dst, base, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if k := st.Mode & unix.S_IFMT; k != unix.S_IFLNK { // chown may clear bits
		if err := unix.Fchmodat(dst, base, uint32(st.Mode&0o7777), 0); err != nil {
			return err
		}
	}
	mtime := timespec(st.Mtime.Sec, int64(st.Mtime.Nsec))
	return unix.UtimesNanoAt(dst, base, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyFile(src, dst int, base string, st *unix.Statx_t) error {
	in, err := openRegular(src, base)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(in), base)
	defer from.Close()
	out, err := unix.Openat(dst, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(out), base)
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil { // copy_file_range(2) where it can
		return fmt.Errorf("copying: %w", err)
	}
	return copyMetadata(in, out, st)
}

// copyMetadata gives the open copy what a layer keeps of a file besides its
// content.
func copyMetadata(in, out int, st *unix.Statx_t) error {
	if err := unix.Fchown(out, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(out, uint32(st.Mode&0o7777)); err != nil {
		return err
	}
	if err := copyXattrs(in, out); err != nil {
		return err
	}
	return setTime(out, timespec(st.Mtime.Sec, int64(st.Mtime.Nsec)))
}

// copyXattrs copies the attributes that go into layers.
func copyXattrs(src, dst int) error {
	list, _, err := readXattrs(src, false)
	if err != nil {
		return err
	}
	for _, x := range list {
		if err := unix.Fsetxattr(dst, x.name, []byte(x.value), 0); err != nil {
			return fmt.Errorf("extended attribute %s: %w", x.name, err)
		}
	}
	return nil
}
