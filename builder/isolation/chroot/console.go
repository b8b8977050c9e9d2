package chroot

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// console waits for the master side of the step's pty.
type console struct{ done chan struct{} }

// newConsole returns the init's end of the socket. When that is closed without
// a terminal having come, use is not called.
func newConsole(use func(*os.File)) (*console, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	c := &console{make(chan struct{})}
	go func() {
		defer close(c.done)
		defer ours.Close()
		if m := receive(ours); m != nil {
			use(m)
		}
	}()
	return c, theirs, nil
}

func (c *console) wait() { <-c.done }

func receive(socket *os.File) *os.File {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	// With a poller behind it, reading can be given up.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "console")
}

// takeTerminal makes a pty from ptmx, gives its master away and makes the
// slave the standard streams and the controlling terminal. The caller leads a
// session.
func takeTerminal(ptmx int, uid uint32, size *specs.Box) error {
	if size != nil {
		if err := unix.IoctlSetWinsize(ptmx, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}); err != nil {
			return fmt.Errorf("size of the pty: %w", err)
		}
	}
	if err := unix.IoctlSetPointerInt(ptmx, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the pty: %w", err)
	}
	// By descriptor (Linux 4.13): no name is looked up.
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(ptmx), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("other side of the pty: %w", errno)
	}
	slave := int(fd)
	_ = unix.Fchown(slave, int(uid), -1) // where the id is mapped
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(slave), unix.TIOCSCTTY, 0); errno != 0 {
		return fmt.Errorf("controlling terminal: %w", errno)
	}
	for n := range 3 {
		if err := unix.Dup3(slave, n, 0); err != nil {
			return fmt.Errorf("standard streams: %w", err)
		}
	}
	if err := unix.Sendmsg(consoleFd, []byte{0}, unix.UnixRights(ptmx), nil, 0); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return nil
}
