package chroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sort"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation/reaper"
)

// init turns a process that was started as monitor or init into that. It runs
// on the first thread, to which parent death signals are bound.
func init() {
	if len(os.Args) != 1 {
		return
	}
	switch os.Args[0] {
	case monitorName:
		if isSocket(controlFd) {
			os.Exit(monitorMain())
		}
	case initName:
		if isSocket(controlFd) {
			os.Exit(initMain())
		}
	}
}

func isSocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && kind == unix.AF_UNIX
}

// monitorMain is the monitor. Its exit status says nothing: the report does.
func monitorMain() int {
	control := os.NewFile(controlFd, "control")
	var j job
	if err := readMessage(control, &j); err != nil {
		return 1
	}
	if err := writeMessage(control, monitor(&j, control)); err != nil {
		leaveGroup(j.Group) // the driver has died
		return 1
	}
	return 0
}

func monitor(j *job, control *os.File) *report {
	// Inherited descriptors of whoever started the driver.
	if err := closeOnExec(); err != nil {
		return failed("descriptors", err)
	}
	// Signals that were ignored get a handler here, and so their default in
	// what we start. Nobody but a hostile step sends any.
	signal.Notify(make(chan os.Signal, 1))
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return failed("reaper of the step's processes", err)
	}
	var root borrowed
	if !j.Mounts {
		if err := root.borrow(rootFd, j.Files); err != nil {
			return finishRoot(&root, failed("", err))
		}
	}
	return finishRoot(&root, supervise(j, control))
}

func finishRoot(root *borrowed, r *report) *report {
	if err := root.giveBack(); err != nil {
		r.Left = "chroot isolation: the step's root is not as it was: " + err.Error()
	}
	return r
}

func failed(what string, err error) *report {
	r := &report{Error: err.Error()}
	if what != "" {
		r.Error = what + ": " + r.Error
	}
	errors.As(err, &r.Errno)
	return r
}

// supervise runs the init to its end, and ends everything that is left then,
// or earlier when told to, or when the driver is gone.
func supervise(j *job, control *os.File) *report {
	ours, theirs, err := socketPair()
	if err != nil {
		return failed("", err)
	}
	defer ours.Close()
	p, err := startInit(j, theirs)
	theirs.Close()
	if err != nil {
		return failed("start of the init", err)
	}
	// The init reads the job before it does anything.
	if err := cgroup.Add(j.Limits, p); err != nil {
		reaper.EndAll(p)
		return failed("", err)
	}
	if err := writeMessage(ours, j); err != nil {
		reaper.EndAll(p)
		return failed("init", err)
	}
	orders := make(chan byte)
	go func() {
		for b := make([]byte, 1); ; {
			if n, err := control.Read(b); n == 0 || err != nil {
				b[0] = 'K'
				orders <- b[0]
				return
			}
			orders <- b[0]
		}
	}()
	failure := make(chan *report, 1)
	go func() {
		var r report
		if err := readMessage(ours, &r); err == nil {
			failure <- &r
		} else if errors.Is(err, io.EOF) {
			failure <- nil // it has become the step's program
		} else {
			failure <- failed("init", err)
		}
	}()
	ended := make(chan syscall.WaitStatus, 1)
	go func() { ended <- reaper.Wait(p) }()
	for {
		select {
		case st := <-ended:
			// A descendant cannot hold the socket: it is closed on execve.
			if r := <-failure; r != nil {
				reaper.EndAll(0)
				return r
			}
			reaper.EndAll(0)
			return &report{Status: st}
		case o := <-orders:
			if o == 'T' {
				_ = unix.Kill(p, unix.SIGTERM) // ours until waited for
				continue
			}
			reaper.EndAll(p)
			orders = nil // one is enough
		}
	}
}

// startInit starts this program as the init, in a mount namespace of its own
// where there are trees to mount.
func startInit(j *job, control *os.File) (int, error) {
	files := []*os.File{control, os.NewFile(rootFd, "root"), os.NewFile(consoleFd, "console")}
	fds := []int{}
	for _, fd := range j.Trees {
		fds = append(fds, fd)
	}
	for _, fd := range j.Joined {
		fds = append(fds, fd)
	}
	sort.Ints(fds)
	for i, fd := range fds {
		if fd != firstTreeFd+i {
			return 0, fmt.Errorf("descriptor %d: want %d", fd, firstTreeFd+i)
		}
		files = append(files, os.NewFile(uintptr(fd), strconv.Itoa(fd)))
	}
	if !j.Terminal {
		files[consoleFd-controlFd] = nil
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: []string{}, ExtraFiles: files,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if j.Mounts {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
	}
	err := cmd.Start()
	// The init has them: held here too, the root's mount would stay busy, and
	// the console's socket open.
	for _, f := range files[1:] {
		f.Close() // nil is an error that does not matter
	}
	if err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}
