package cli

import (
	"bytes"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/stratabuild/strata/builder/isolation"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// userTerminal connects the user's terminal with the one of a command.
type userTerminal struct {
	in, out *os.File
	// interrupt ends the command, whom a signal of its terminal does not reach.
	interrupt func(syscall.Signal)
}

// endOfInput is what a terminal in its normal mode takes for the end of input
// (VEOF of termios(3)).
const endOfInput = 0x04

// terminal is one for a command, of the user's size.
func (t *userTerminal) terminal() *isolation.Terminal {
	return &isolation.Terminal{Size: t.size(), Console: t.console}
}

// console copies between the two until the command ends; see
// isolation.Terminal.
func (t *userTerminal) console(master *os.File) {
	defer master.Close()
	if isTerminal(t.in) {
		// What is typed is the command's business, the keys for signals too.
		if before, err := term.MakeRaw(int(t.in.Fd())); err == nil {
			defer term.Restore(int(t.in.Fd()), before) //nolint:errcheck // the terminal has gone
		}
	}
	defer t.followSize(master)()
	defer t.copyInput(master)()
	// Reading fails with EIO when the command has ended.
	_, _ = io.Copy(t.out, struct{ io.Reader }{master})
}

// size is that of the user's terminal; nothing where there is none.
func (t *userTerminal) size() isolation.TerminalSize {
	from := t.in
	if !isTerminal(from) {
		from = t.out
	}
	size, err := unix.IoctlGetWinsize(int(from.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return isolation.TerminalSize{}
	}
	return isolation.TerminalSize{Rows: size.Row, Columns: size.Col}
}

// followSize gives the command's terminal the size of the user's whenever it
// changes, until the function that it returns is called. What changed before
// it was called is noticed, too.
func (t *userTerminal) followSize(master *os.File) (stop func()) {
	set := func() {
		size := t.size()
		if size == (isolation.TerminalSize{}) {
			return
		}
		control(master, func(fd int) {
			_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
		})
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		set()
		for {
			select {
			case <-changed:
				set()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(changed)
		close(done)
		wait.Wait()
	}
}

// control calls f with a file's descriptor, whose mode stays as it is.
func control(f *os.File, do func(fd int)) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { do(int(fd)) })
	}
}

// copyInput passes on what is typed. It reads only when there is something to
// read, so that what is typed after the command has ended is left to the shell.
func (t *userTerminal) copyInput(master *os.File) (stop func()) {
	wake, end, err := os.Pipe()
	if err != nil || t.in == nil {
		return func() {}
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		var b [4096]byte
		last := byte('\n')
		in := int(t.in.Fd())
		for {
			fds := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			} else if err != nil || fds[1].Revents != 0 {
				return
			}
			n, err := unix.Read(in, b[:])
			switch {
			case err == unix.EINTR || err == unix.EAGAIN:
				continue
			case err != nil || n <= 0:
				// In the middle of a line the first one ends the line only.
				end := []byte{endOfInput, endOfInput}
				if last == '\n' {
					end = end[:1]
				}
				_, _ = master.Write(end)
				return
			}
			last = b[n-1]
			t.noticeSignal(master, b[:n])
			if _, err := master.Write(b[:n]); err != nil {
				return
			}
		}
	})
	return func() {
		end.Close()
		wait.Wait()
		wake.Close()
	}
}

// noticeSignal acts on the keys for signals (Ctrl-C, Ctrl-\) where the kernel
// does not: the first process of a pid namespace gets only signals that it
// handles (pid_namespaces(7)).
func (t *userTerminal) noticeSignal(master *os.File, typed []byte) {
	control(master, func(fd int) {
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil || mode.Lflag&unix.ISIG == 0 {
			return
		}
		for key, s := range map[int]syscall.Signal{unix.VINTR: syscall.SIGINT, unix.VQUIT: syscall.SIGQUIT} {
			if c := mode.Cc[key]; c == 0 || bytes.IndexByte(typed, c) < 0 {
				continue
			}
			if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && deafInit(group, s) {
				t.interrupt(s)
			}
		}
	})
}

// deafInit reports a process that is the first one of a pid namespace and
// neither handles nor ignores the signal.
func deafInit(pid int, s syscall.Signal) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	inner, masks := "", uint64(0)
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "NSpid":
			fields := strings.Fields(value)
			inner = fields[len(fields)-1]
		case "SigIgn", "SigCgt":
			m, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return false
			}
			masks |= m
		}
	}
	return inner == "1" && masks&(1<<(s-1)) == 0
}

// keepTerminal remembers the state of the user's terminal, and returns a
// function that sets it again where somebody has changed it and could not undo
// that.
func keepTerminal(f *os.File) func() {
	if !isTerminal(f) {
		return func() {}
	}
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return func() {}
	}
	return func() {
		now, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		if err == nil && *now != *before {
			_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, before)
		}
	}
}
