package userns

import (
	"os"

	"golang.org/x/sys/unix"
)

// hostProc is the /proc that was there before this process mounted its own.
var hostProc *os.File

// keepHostProc opens it. Without it, processes outside cannot be named.
func keepHostProc() {
	if fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		hostProc = os.NewFile(uintptr(fd), "/proc of the host")
	}
}

// HostProc returns the /proc of the pid namespace around this process's own,
// where it has one of its own; else nil. It is the package's to close.
func HostProc() *os.File { return hostProc }
