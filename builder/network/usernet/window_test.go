package usernet

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The window is never more than the socket can hold, within bounds.
func TestWindow(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	n := &Stack{o: Options{FD: fds[0]}}
	for _, asked := range []int{4 << 10, 100 << 10, 200 << 10} {
		if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_RCVBUF, asked); err != nil {
			t.Fatal(err)
		}
		held, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err != nil {
			t.Fatal(err)
		}
		if w, want := n.window(), max(128<<10, held*3/4); w != want {
			t.Errorf("a buffer of %d: window %d, want %d", held, w, want)
		}
	}
	n.o.Tun = true
	if w := n.window(); w != 8<<20 {
		t.Errorf("tun: window %d", w)
	}
}
