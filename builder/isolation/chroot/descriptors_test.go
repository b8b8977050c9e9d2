package chroot

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloseEachOnExec: what kernels before 5.11 do in close_range's place.
func TestCloseEachOnExec(t *testing.T) {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := closeEachOnExec(); err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x (%v): stays open in the program", flags, err)
	}
	if flags, err := unix.FcntlInt(0, unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC != 0 {
		t.Error("standard input is closed too")
	}
}
