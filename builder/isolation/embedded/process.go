package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
)

// process is an init, and later the step's first process.
type process struct {
	child  *os.Process // the monitor, if it has one
	pid    int         // its own number
	socket int
	flags  uintptr // the namespaces it has
	// control is the connection with the monitor, or nil.
	control *os.File
	// running is set once the step's program has been executed.
	running atomic.Bool
	// ended ends the thread that it was started from; nil: that stays.
	ended chan struct{}
}

// send gives the init its configuration.
func (p *process) send(config []byte, fds []int) error {
	head := early.Header(len(config), len(fds))
	for first := true; first || len(fds) > 0; first = false {
		batch := fds[:min(len(fds), early.BatchSize)]
		fds = fds[len(batch):]
		data := head
		if !first {
			data = []byte{0}
		}
		for {
			n, err := unix.SendmsgN(p.socket, data, unix.UnixRights(batch...), nil, unix.MSG_NOSIGNAL)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("send the step's descriptors: %w", err)
			}
			if n != len(data) {
				return fmt.Errorf("send the step's descriptors: %d bytes of %d went", n, len(data))
			}
			break
		}
	}
	for len(config) > 0 {
		n, err := unix.SendmsgN(p.socket, config, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send the step's configuration: %w", err)
		}
		config = config[n:]
	}
	return nil
}

// outcome is what an init reported before its socket ended.
type outcome struct {
	// started: the container was made and the program was to be executed.
	started bool
	// err is the failure of the set-up, or the *isolation.ExitError of the
	// execution.
	err error
}

// follow reads reports until the socket ends, which is when the program has
// been executed or the init has died. console receives the pty's master, and
// listener that of the filter.
func (p *process) follow(console, listener func(*os.File)) (o outcome) {
	for {
		var head [early.ReportSize]byte
		fd, ok := p.read(head[:])
		if !ok {
			p.running.Store(o.started && o.err == nil)
			return o
		}
		kind, errno, size := early.DecodeReport(head)
		if size > 64<<10 {
			o.err = errors.New("the step's first process sent a malformed report")
			return o
		}
		text := make([]byte, size)
		if size > 0 {
			if _, ok := p.read(text); !ok {
				return o
			}
		}
		switch kind {
		case early.ReportStart:
			o.started = true
		case early.ReportPty:
			hand(console, fd, "pty")
		case early.ReportListener:
			hand(listener, fd, "listener")
		case early.ReportSetup:
			o.err = setupError(string(text), syscall.Errno(errno))
		case early.ReportExec:
			o.err = isolation.ExecError(string(text), syscall.Errno(errno))
		}
	}
}

// hand gives a descriptor that came with a report to f.
func hand(f func(*os.File), fd int, name string) {
	if fd < 0 {
		return
	}
	file := os.NewFile(uintptr(fd), name)
	if f == nil {
		file.Close()
		return
	}
	f(file)
}

// joinText is what an init says of a namespace that it may not join.
const joinText = "join a namespace"

// setupError is a failure of the container.
func setupError(text string, errno syscall.Errno) error {
	remedy := ""
	if errno == syscall.ENOENT && len(text) > 12 && text[:12] == "mount point " {
		remedy = ": it is missing in the root (make it with isolation.MakeTargets)"
	}
	if errno == syscall.EPERM && text == joinText {
		remedy = "; only root of the machine joins namespaces that this user did not make: run strata as root, or leave the path out"
	}
	return fmt.Errorf("set up the step: %s: %w%s", text, errno, remedy)
}

// read fills b from the socket, with the first descriptor that comes along.
func (p *process) read(b []byte) (fd int, ok bool) {
	fd = -1
	control := make([]byte, unix.CmsgSpace(4))
	for len(b) > 0 {
		n, cn, _, _, err := unix.Recvmsg(p.socket, b, control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if cn > 0 {
			if messages, err := unix.ParseSocketControlMessage(control[:cn]); err == nil {
				for i := range messages {
					if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) > 0 {
						fd = fds[0]
					}
				}
			}
		}
		if err != nil || n == 0 {
			return fd, false
		}
		b = b[n:]
	}
	return fd, true
}

// end kills the process and waits for it.
func (p *process) end() {
	p.kill()
	p.wait()
	p.close()
}

// startedSoon reports whether the step's program runs. It may do so, and have
// been heard of by others, a moment before its socket told us.
func (p *process) startedSoon() bool {
	for range 50 {
		if p.running.Load() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return p.running.Load()
}

// handlesTerm reports whether the process would do something on SIGTERM.
// The first process of a pid namespace ignores signals that it has no handler
// for, unlike any other.
func (p *process) handlesTerm() bool {
	if p.control != nil {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/status")
	if err != nil {
		return true
	}
	_, rest, ok := bytes.Cut(status, []byte("\nSigCgt:\t"))
	if !ok {
		return true
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	caught, err := strconv.ParseUint(string(line), 16, 64)
	return err != nil || caught&(1<<(syscall.SIGTERM-1)) != 0
}
