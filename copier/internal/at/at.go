package at

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Retry calls f until it is not interrupted. File systems in user space and
// network file systems return EINTR from calls that local ones never
// interrupt.
func Retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Open is openat(2) with O_CLOEXEC.
func Open(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// Close closes fd; a negative one is ignored.
func Close(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// Dup duplicates fd, close-on-exec.
func Dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

// Stat is fstat(2).
func Stat(fd int, st *unix.Stat_t) error {
	for {
		if err := unix.Fstat(fd, st); err != unix.EINTR {
			return err
		}
	}
}

// Lstat is fstatat(2) without following a link.
func Lstat(dir int, name string, st *unix.Stat_t) error {
	for {
		if err := unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW); err != unix.EINTR {
			return err
		}
	}
}

// Readlink returns the target of the link name in dir; with name "" that of
// dir itself, which is then an O_PATH descriptor of a link.
func Readlink(dir int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dir, name, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// Chtimes sets the times of an open object in nanoseconds since the epoch
// (seconds and nanoseconds apart, for the range); the access time is kept.
func Chtimes(fd int, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// ChtimesAt sets the modification time of name in dir, not following a link.
func ChtimesAt(dir int, name string, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// ErrNoProc tells that an operation needs /proc, which is not there.
var ErrNoProc = errors.New("/proc is not mounted")

// ProcPath is a path that reaches the object behind fd itself, even when fd
// was opened with O_PATH.
func ProcPath(fd int) string {
	return "/proc/self/fd/" + itoa(fd)
}

// Chmod sets the mode of the object behind an O_PATH descriptor, which must
// not be a symbolic link.
func Chmod(fd int, mode uint32) error {
	// fchmodat2(2) with AT_EMPTY_PATH needs Linux 6.6; before it the link in
	// /proc is the only way to change an inode and not a name.
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err == nil || (err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.EINVAL && err != unix.EPERM) {
		return err
	}
	perr := unix.Chmod(ProcPath(fd), mode)
	if errors.Is(perr, os.ErrNotExist) {
		return ErrNoProc
	}
	return perr
}

func itoa(n int) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
