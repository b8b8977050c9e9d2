package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// measurement is what one run took.
type measurement struct {
	Seconds float64
	RSS     int64 // bytes: the largest of any process that was waited for
	CPU     float64
	// Written is what went to the disk, in bytes, when that can be told.
	Written int64
	Exit    int
}

// measureArg is the first argument of a process that measures another. A
// child starts with its parent's resident set as its maximum (the kernel
// hands it on in execve), so that the parent has to be a small one.
const measureArg = "measure-child"

// maxRun ends a run that hangs.
const maxRun = 20 * time.Minute

// measure runs the command in a process that does nothing else.
func measure(ctx context.Context, cmd *exec.Cmd) (measurement, error) {
	var m measurement
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return m, err
	}
	defer r.Close()
	c := exec.CommandContext(ctx, "/proc/self/exe", append([]string{measureArg, credential(cmd), cmd.Path}, cmd.Args...)...)
	c.Env, c.Dir = cmd.Env, cmd.Dir
	c.ExtraFiles = []*os.File{w}
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
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

// credential is "uid gid" of a command that another user runs, else "".
func credential(cmd *exec.Cmd) string {
	if cmd.SysProcAttr == nil || cmd.SysProcAttr.Credential == nil {
		return ""
	}
	c := cmd.SysProcAttr.Credential
	return fmt.Sprintf("%d %d", c.Uid, c.Gid)
}

// measureMain is the process that measures: args are a credential, a program's
// path and its arguments, the answer goes to descriptor 3.
func measureMain(args []string) {
	answer := os.NewFile(3, "answer")
	syscall.CloseOnExec(3)
	attr := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	var user syscall.Credential
	if n, _ := fmt.Sscan(args[0], &user.Uid, &user.Gid); n == 2 {
		attr.Sys = &syscall.SysProcAttr{Credential: &user}
	}
	start := time.Now()
	p, err := os.StartProcess(args[1], args[2:], attr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	state, err := p.Wait()
	m := measurement{Seconds: time.Since(start).Seconds()}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m.Exit = state.ExitCode()
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		m.RSS = usage.Maxrss << 10
		m.CPU = (state.UserTime() + state.SystemTime()).Seconds()
	}
	if err := json.NewEncoder(answer).Encode(m); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}
