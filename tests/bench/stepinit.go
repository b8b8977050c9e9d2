package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation/embedded/early"
)

// initFlags are the namespaces that each step gets.
const initFlags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// startInit starts the program as the init of a step, again and again, and
// returns the median.
func startInit(program string) (m measurement, err error) {
	const times = 20
	var seconds []float64
	for range times {
		if m, err = startOneInit(program); err != nil {
			return m, err
		}
		seconds = append(seconds, m.Seconds)
	}
	m.Seconds = median(seconds)
	return m, nil
}

// startOneInit starts the program as the init of a step, in new namespaces,
// and measures from the clone to its first answer. It is sent an empty
// configuration, which it refuses as soon as it is there to read it.
func startOneInit(program string) (m measurement, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return m, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "builder"), os.NewFile(uintptr(pair[1]), "init")
	defer ours.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return m, err
	}
	defer null.Close()
	if _, err := ours.Write(early.Header(0, 0)); err != nil {
		return m, err
	}
	start := time.Now()
	p, err := os.StartProcess(program, []string{early.Name}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, theirs},
		Sys: &syscall.SysProcAttr{Cloneflags: initFlags, Pdeathsig: syscall.SIGKILL},
	})
	theirs.Close()
	if err != nil {
		return m, fmt.Errorf("start an init: %w", err)
	}
	var head [early.ReportSize]byte
	n, err := ours.Read(head[:])
	m.Seconds = time.Since(start).Seconds()
	_, usage, waitErr := waitFor(p.Pid)
	if err := errors.Join(err, waitErr); err != nil {
		return m, fmt.Errorf("%s does not answer as an init: %w", program, err)
	}
	if n == 0 || head[0] != early.ReportSetup {
		return m, fmt.Errorf("%s does not answer as an init: %q", program, head[:n])
	}
	m.RSS, m.Written = usage.Maxrss<<10, -1
	m.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	return m, nil
}
