package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/builder/isolation/reaper"
)

// A step without a pid namespace has a monitor: this program again, between
// the builder and the init. It is the reaper of whatever the step starts, and
// ends all of it with the step, or when the builder has died.

// monitorName is its argv[0].
const monitorName = "strata-monitor"

// Descriptors of a monitor: the init's socket, which is passed on, and the
// connection with the builder.
const (
	initSocketFD = 3
	controlFD    = 4
)

// Orders to a monitor.
const (
	orderTerm = 'T' // SIGTERM to the step's first process
	orderKill = 'K' // an end to all of it
)

func init() {
	if len(os.Args) != 1 || os.Args[0] != monitorName {
		return
	}
	if kind, err := unix.GetsockoptInt(controlFD, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && kind == unix.AF_UNIX {
		// On the first thread, to which the init's parent death signal is bound.
		os.Exit(monitor(os.NewFile(controlFD, "control")))
	}
}

// monitor starts an init in the namespaces that the builder asks for, answers
// with its number and an errno, and at last with its wait status.
func monitor(control *os.File) int {
	// Not closed: the runtime may have some of its own by now.
	if err := unix.CloseRange(controlFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 1
	}
	flags, err := readNumber(control)
	if err != nil {
		return 1
	}
	pid, err := startReaped(uintptr(flags))
	if err != nil {
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = syscall.EIO
		}
		_ = writeNumbers(control, 0, uint64(errno)) // it is gone then
		return 1
	}
	if err := writeNumbers(control, uint64(pid), 0); err != nil {
		reaper.EndAll(0)
		return 1
	}
	st := supervise(pid, control)
	if err := writeNumbers(control, uint64(st)); err != nil {
		return 1
	}
	return 0
}

func startReaped(flags uintptr) (int, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	unix.CloseOnExec(controlFD)
	socket := os.NewFile(initSocketFD, "init")
	defer socket.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{early.Name}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, socket},
		Sys: &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, err
	}
	return p.Pid, nil
}

// supervise waits for the init and then ends all that is left.
func supervise(pid int, control *os.File) syscall.WaitStatus {
	orders := make(chan byte)
	go func() {
		for b := make([]byte, 1); ; {
			if n, err := control.Read(b); n == 0 || err != nil {
				orders <- orderKill // the builder has died
				return
			}
			orders <- b[0]
		}
	}()
	ended := make(chan syscall.WaitStatus, 1)
	go func() { ended <- reaper.Wait(pid) }()
	for {
		select {
		case st := <-ended:
			reaper.EndAll(0)
			return st
		case o := <-orders:
			if o == orderTerm {
				_ = unix.Kill(pid, unix.SIGTERM) // ours until waited for
				continue
			}
			reaper.EndAll(pid)
			orders = nil // one is enough
		}
	}
}

func readNumber(r io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

func writeNumbers(w io.Writer, numbers ...uint64) error {
	var b []byte
	for _, n := range numbers {
		b = binary.NativeEndian.AppendUint64(b, n)
	}
	_, err := w.Write(b)
	return err
}

// askMonitor has a monitor that was just started start the init.
func (p *process) askMonitor() error {
	if err := writeNumbers(p.control, uint64(p.flags)); err != nil {
		return fmt.Errorf("monitor of the step: %w", err)
	}
	pid, err := readNumber(p.control)
	if err != nil {
		return fmt.Errorf("monitor of the step: %w", err)
	}
	errno, err := readNumber(p.control)
	if err != nil {
		return fmt.Errorf("monitor of the step: %w", err)
	}
	if errno != 0 {
		return syscall.Errno(errno)
	}
	p.pid = int(pid)
	return nil
}

// wait waits for the step's first process, and for its monitor if it has one.
func (p *process) wait() (syscall.WaitStatus, error) {
	if p.control == nil {
		state, err := p.child.Wait()
		if err != nil {
			return 0, err
		}
		st, _ := state.Sys().(syscall.WaitStatus)
		return st, nil
	}
	status, err := readNumber(p.control)
	if _, e := p.child.Wait(); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, errors.New("the step has killed its monitor")
	}
	return syscall.WaitStatus(status), nil
}

// kill ends the step at once.
func (p *process) kill() {
	if p.control != nil {
		p.order(orderKill)
		return
	}
	p.child.Kill()
}

// term asks the step to end.
func (p *process) term() {
	if p.control != nil {
		p.order(orderTerm)
		return
	}
	p.child.Signal(syscall.SIGTERM)
}

// order tells the monitor, which may just have ended.
func (p *process) order(o byte) { _, _ = p.control.Write([]byte{o}) }

// close closes what the builder holds of a process that has ended.
func (p *process) close() {
	unix.Close(p.socket)
	if p.control != nil {
		p.control.Close()
	}
	if p.ended != nil {
		close(p.ended)
	}
}
