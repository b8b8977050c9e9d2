package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// measurement is what one run took.
type measurement struct {
	Seconds float64
	RSS     int64 // bytes: the largest of any process that was waited for
	// Memory is the most that all processes had together, in bytes, when it
	// was looked at (order.Sample).
	Memory int64
	CPU    float64
	// Written is what went to the disk, in bytes; less than 0 where that
	// cannot be told.
	Written int64
	Exit    int
}

// order is what the measuring process is told of a command.
type order struct {
	UID, GID uint32 // of a command that another user runs; 0 is our own
	Sample   bool   // look at the memory all the time: the time is worthless
	Daemon   int    // a process whose memory counts, with its descendants'; 0: none
	Init     bool   // the command is the init of a step, see startInit
}

// measureArg is the first argument of a process that measures another. A
// child starts with its parent's resident set as its maximum (the kernel
// hands it on in execve), so that the parent has to be a small one.
const measureArg = "measure-child"

const (
	// maxRun ends a run that hangs.
	maxRun = 20 * time.Minute
	// maxEnd is how long the processes of a run that was ended may take.
	maxEnd = 20 * time.Second
)

// measure runs the command in a process that does nothing else.
func measure(ctx context.Context, cmd *exec.Cmd, o order) (measurement, error) {
	var m measurement
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return m, err
	}
	defer r.Close()
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Credential != nil {
		o.UID, o.GID = cmd.SysProcAttr.Credential.Uid, cmd.SysProcAttr.Credential.Gid
	}
	text, err := json.Marshal(o)
	if err != nil {
		return m, err
	}
	c := exec.CommandContext(ctx, "/proc/self/exe", append([]string{measureArg, string(text), cmd.Path}, cmd.Args...)...)
	c.Env, c.Dir = cmd.Env, cmd.Dir
	c.ExtraFiles = []*os.File{w}
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// It ends all descendants of the command, and then itself.
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = maxEnd
	err = c.Start()
	w.Close()
	if err != nil {
		return m, err
	}
	decodeErr := json.NewDecoder(r).Decode(&m)
	if err := errors.Join(c.Wait(), ctx.Err(), decodeErr); err != nil {
		return m, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(out.String()))
	}
	if m.Exit != 0 {
		return m, fmt.Errorf("%s: exit status %d: %s", strings.Join(cmd.Args, " "), m.Exit, tail(out.String()))
	}
	return m, nil
}

// measureMain is the process that measures: args are an order, a program's
// path and its arguments, the answer goes to descriptor 3.
func measureMain(args []string) {
	answer := os.NewFile(3, "answer")
	syscall.CloseOnExec(3)
	m, err := measureHere(args)
	if err == nil {
		err = json.NewEncoder(answer).Encode(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func measureHere(args []string) (m measurement, err error) {
	var o order
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return m, err
	}
	// What loses its parent becomes our child: it can be found when it must
	// be ended, and its memory counts.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return m, err
	}
	end := make(chan os.Signal, 1)
	ending := make(chan struct{})
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		close(ending)
		endDescendants(os.Getpid(), maxEnd/2)
		os.Exit(1)
	}()
	defer func() {
		select {
		case <-ending:
			select {} // the others are still being ended
		default:
		}
	}()
	if o.Init {
		return startInit(args[1])
	}
	attr := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if o.UID != 0 {
		attr.Sys = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.UID, Gid: o.GID}}
	}
	var sampler *sampler
	if o.Sample {
		sampler = newSampler(os.Getpid(), o.Daemon)
	}
	before, known := writtenByUs()
	start := time.Now()
	p, err := os.StartProcess(args[1], args[2:], attr)
	if err != nil {
		return m, err
	}
	status, usage, err := waitFor(p.Pid)
	m.Seconds = time.Since(start).Seconds()
	if err != nil {
		return m, err
	}
	if m.Exit = status.ExitStatus(); status.Signaled() {
		m.Exit = 128 + int(status.Signal())
	}
	m.RSS = usage.Maxrss << 10
	m.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	m.Written = -1
	if after, ok := writtenByUs(); ok && known {
		m.Written = after - before
	}
	if sampler != nil {
		if m.Memory = sampler.stop(); m.Memory == 0 {
			m.Memory = m.RSS // it ended between two looks
		}
	}
	return m, nil
}

// waitFor waits for a child, and meanwhile for all others that we get.
func waitFor(pid int) (status syscall.WaitStatus, usage syscall.Rusage, err error) {
	for {
		got, err := syscall.Wait4(-1, &status, 0, &usage)
		if err == syscall.EINTR {
			continue
		}
		if got == pid || err != nil {
			return status, usage, err
		}
	}
}

// writtenByUs returns how many bytes this process and the children that it
// waited for, with theirs, have made dirty (proc_pid_io(5), write_bytes).
func writtenByUs() (int64, bool) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
