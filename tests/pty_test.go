package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal (pty(7)) with a program on it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	read   chan []byte // closed when nobody has the other side open any more
	seen   bytes.Buffer
	at     int // what lies before has been expected already
}

// patience is how long a program may take to say what is expected.
const patience = 2 * time.Minute

// onTerminal starts a program as the leader of a session whose controlling
// terminal has rows and cols.
func onTerminal(t *testing.T, env []string, rows, cols uint16, program string, args ...string) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = append(env, "TERM=dumb")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, master: master, cmd: cmd, read: make(chan []byte, 64)}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	go func() {
		defer close(x.read)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if err != nil {
				return // EIO: the last one has closed it
			}
			x.read <- b[:n]
		}
	}()
	return x
}

// expect waits until the program has said text, after what was expected
// before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	limit := time.After(patience)
	for {
		if i := strings.Index(x.seen.String()[x.at:], text); i >= 0 {
			x.at += i + len(text)
			return
		}
		select {
		case b, ok := <-x.read:
			if !ok {
				x.t.Fatalf("it ended without %q; it said:\n%s", text, x.seen.String())
			}
			x.seen.Write(b)
		case <-limit:
			x.t.Fatalf("%q does not come; it said:\n%s", text, x.seen.String())
		}
	}
}

// interrupt types ^C until the program has said text: a shell loses one that
// comes in the moment in which it starts a program.
func (x *terminal) interrupt(text string) {
	x.t.Helper()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	x.send("\x03")
	limit := time.After(patience)
	for !strings.Contains(x.seen.String()[x.at:], text) {
		select {
		case b, ok := <-x.read:
			if !ok {
				x.t.Fatalf("it ended without %q; it said:\n%s", text, x.seen.String())
			}
			x.seen.Write(b)
		case <-again.C:
			x.send("\x03")
		case <-limit:
			x.t.Fatalf("%q does not come; it said:\n%s", text, x.seen.String())
		}
	}
	x.expect(text)
}

// send types text.
func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// end waits for the program's end and returns its exit status; the terminal
// must then be as it was.
func (x *terminal) end() int {
	x.t.Helper()
	limit := time.After(patience)
	for open := true; open; {
		var b []byte
		select {
		case b, open = <-x.read:
			x.seen.Write(b)
		case <-limit:
			x.t.Fatalf("it does not end; it said:\n%s", x.seen.String())
		}
	}
	var exit *exec.ExitError
	if err := x.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		x.t.Fatal(err)
	}
	state, err := unix.IoctlGetTermios(int(x.master.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	if want := uint32(unix.ECHO | unix.ICANON | unix.ISIG); state.Lflag&want != want {
		x.t.Errorf("the terminal is left raw: %#o", state.Lflag)
	}
	return x.cmd.ProcessState.ExitCode()
}
