//go:build 386 || arm

package chroot

import "golang.org/x/sys/unix"

// The calls without a suffix take ids of 16 bits here.
const (
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetresgid = unix.SYS_SETRESGID32
	sysSetresuid = unix.SYS_SETRESUID32
)
