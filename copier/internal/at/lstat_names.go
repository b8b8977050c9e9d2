//go:build amd64 || arm64

package at

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// LstatIn is Lstat of the name at the offset in names, which a NUL ends: the
// kernel reads it where it is, and a million look-ups copy nothing.
func LstatIn(dir int, names string, off uint32, st *unix.Stat_t) error {
	name := unsafe.Pointer(unsafe.StringData(names[off:]))
	for {
		_, _, e := unix.Syscall6(sysFstatat, uintptr(dir), uintptr(name), uintptr(unsafe.Pointer(st)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return e
		}
	}
}
