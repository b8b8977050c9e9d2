package ocirun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// unignoreSignals gives signals 32 and up that this process ignores their
// default back: what is ignored stays so through execve(2), in the runtime and
// in the step. Parents ignore the ones that C libraries use, of which Go knows
// nothing. Signals with a handler are left alone.
func unignoreSignals() {
	const ignore = 1 // SIG_IGN
	var action, none [64]byte
	for n := uintptr(32); n <= 64; n++ {
		action = [64]byte{}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
		handler := *(*uintptr)(unsafe.Pointer(&action)) // the first field wherever Go runs, but on mips
		if errno != 0 || handler != ignore {
			continue
		}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
	}
}
