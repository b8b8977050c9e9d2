package ocirun

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

// console is the socket by which crun hands over the master side of a step's
// pty. runc takes one only when it is to leave the step alone.
type console struct {
	l    *net.UnixListener
	got  chan received
	done chan struct{} // closed when the user's function has returned
}

type received struct {
	master *os.File
	err    error
}

// consoleName is relative: the runtime is started in the bundle, so that the
// directory's length does not count against the 107 bytes of a socket's name.
const consoleName = "console"

func listenConsole(w *work) (*console, error) {
	dir, err := os.Open(w.dir)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	defer dir.Close()
	name := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), consoleName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then the name leads elsewhere
	c := &console{l: l, got: make(chan received, 1), done: make(chan struct{})}
	go func() {
		m, err := c.receive()
		c.got <- received{m, err}
	}()
	return c, nil
}

// receive waits for the one connection and the one descriptor.
func (c *console) receive() (*os.File, error) {
	conn, err := c.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	// The message is the pty's name, which is of no use here.
	text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, flags, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range msgs {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) != 1 || flags&unix.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("%d descriptors where one was expected", len(fds))
	}
	unix.CloseOnExec(fds[0])
	if _, err := unix.IoctlGetWinsize(fds[0], unix.TIOCGWINSZ); err != nil {
		unix.Close(fds[0])
		return nil, errors.New("what was sent is no terminal")
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}

// serve hands the terminal to use as soon as there is one.
func (c *console) serve(use func(*os.File)) {
	go func() {
		defer close(c.done)
		if r := <-c.got; r.err == nil {
			use(r.master)
		}
	}()
}

// close ends the waiting for a connection, and waits for the user's function.
func (c *console) close() {
	c.l.Close()
	<-c.done
}

// ownTerminal gives cmd a pty as its standard streams, and its controlling
// terminal, and the master side to t.Console. The runtime carries everything, the
// size included, on to the pty that it makes in the step; ours is a plain
// pipe between them (raw). runc carries the size over only after the program
// has started, so that size is in the bundle, too. The returned function waits
// for t.Console.
func ownTerminal(cmd *exec.Cmd, t *isolation.Terminal) (func(), error) {
	master, slave, err := openPty()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	if t.Size != (isolation.TerminalSize{}) {
		// runc takes the bundle's place with it later.
		_ = unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: t.Size.Rows, Col: t.Size.Columns})
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	// A session implies a group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.Console(master)
	}()
	return func() {
		// Ours is the last: now reading the master ends.
		slave.Close()
		<-done
	}, nil
}

// openPty makes a pty in raw mode.
func openPty() (master, slave *os.File, err error) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("/dev/ptmx: %w", err)
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(m)
		return nil, nil, fmt.Errorf("unlock the pty: %w", err)
	}
	// By descriptor (Linux 4.13): /dev/pts here may be another instance.
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(m)
		return nil, nil, fmt.Errorf("other side of the pty: %w", errno)
	}
	// With a poller behind it, reading the master can be given up.
	if err := unix.SetNonblock(m, true); err != nil {
		unix.Close(m)
		unix.Close(int(s))
		return nil, nil, err
	}
	master, slave = os.NewFile(uintptr(m), "console"), os.NewFile(s, "console")
	t, err := unix.IoctlGetTermios(m, unix.TCGETS)
	if err == nil {
		// What cfmakeraw(3) does.
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		err = unix.IoctlSetTermios(m, unix.TCSETS, t)
	}
	if err != nil {
		master.Close()
		slave.Close()
		return nil, nil, fmt.Errorf("mode of the pty: %w", err)
	}
	return master, slave, nil
}
