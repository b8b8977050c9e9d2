package network

import (
	"errors"

	"golang.org/x/sys/unix"
)

// closeLater closes descriptors in the kernel's own time. The last close of a
// packet socket, a tun device or a socket that owns a table waits for all
// processors to have seen it (5 to 30 ms), and so would whoever waits for this
// process. Here the last reference is in a message that nobody can receive: of
// a socket that is itself only there. The kernel's garbage collector frees
// such messages, since Linux 6.8 on a thread of its own; earlier ones do it
// here, which costs what close(2) would have.
func closeLater(fds ...int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		// Where this fails (too many descriptors under way), close waits.
		_ = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(append([]int{pair[1]}, fds...)...), nil, unix.MSG_DONTWAIT)
	}
	var errs []error
	for _, fd := range fds {
		errs = append(errs, unix.Close(fd))
	}
	if err == nil {
		unix.Close(pair[1])
		// The close of a socket begins a collection, and this is the last:
		// one that began earlier finds all of it in use.
		unix.Close(pair[0])
	}
	return errors.Join(errs...)
}
