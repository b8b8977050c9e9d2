package userns

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/userns/early"
)

// modeVariable makes this test binary a program that enters namespaces.
const modeVariable = "STRATA_TEST_MODE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeVariable); mode != "" {
		program(mode)
		return
	}
	os.Exit(m.Run())
}

// report is what the program prints.
type report struct {
	Info                            Info
	PID, UID, GID                   int
	Home                            string
	Containers                      []string
	Inheritable, Ambient, Effective string
}

func program(mode string) {
	info, err := Enter(Options{PIDNamespace: mode != "plain"})
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(125)
	}
	switch mode {
	case "exit":
		os.Exit(7)
	case "signal":
		c := make(chan os.Signal, 8)
		signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
		fmt.Println(os.Getpid(), syscall.Getpgrp())
		count := 0
		quiet := time.After(time.Hour)
		for {
			select {
			case <-c:
				count++
				quiet = time.After(600 * time.Millisecond)
			case <-quiet:
				fmt.Println("signals", count)
				return
			}
		}
	case "sleep":
		c := exec.Command("sleep", "300")
		if err := c.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		c.Wait()
		return
	}
	r := report{Info: *info, PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Home: os.Getenv("HOME"),
		Containers: []string{os.Getenv("_CONTAINERS_USERNS_CONFIGURED"), os.Getenv("_CONTAINERS_ROOTLESS_UID"), os.Getenv(early.Variable)}}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "CapInh":
			r.Inheritable = value
		case "CapAmb":
			r.Ambient = value
		case "CapEff":
			r.Effective = value
		}
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

// command runs the program as a user; 0 is root.
func command(t *testing.T, mode string, uid uint32) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), modeVariable+"="+mode, "TMPDIR=/nonexistent")
	c.Dir = "/"
	c.Stderr = os.Stderr
	if uid != uint32(os.Getuid()) {
		if os.Getuid() != 0 {
			t.Skip("needs root to become another user")
		}
		// Where the other user can execute it.
		dir, err := os.MkdirTemp("", "userns")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c.Path = filepath.Join(dir, "program")
		copyFile(t, exe, c.Path)
		c.Args[0] = c.Path
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return c
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	// A process that another test starts meanwhile would hold the program open
	// for writing until its own execve, and nobody can execute it then.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, c *exec.Cmd) report {
	t.Helper()
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		skipWithoutNamespaces(t, stderr.String())
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return r
}

func skipWithoutNamespaces(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "namespaces for the build:") {
		t.Skip(text)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 || !hasSysAdmin() {
		t.Skip("needs root with CAP_SYS_ADMIN")
	}
}

func TestRootWorker(t *testing.T) {
	needRoot(t)
	t.Parallel()
	r := run(t, command(t, "report", 0))
	if !r.Info.Worker || !r.Info.PIDNamespace || r.PID != 1 || r.UID != 0 {
		t.Errorf("%+v", r)
	}
	if r.Containers[2] != "" {
		t.Errorf("the worker's variable is left: %q", r.Containers)
	}
	r = run(t, command(t, "plain", 0))
	if r.Info.Worker || r.PID == 1 {
		t.Errorf("plain: %+v", r)
	}
}

func TestUserWorker(t *testing.T) {
	t.Parallel()
	uid := uint32(os.Getuid())
	if uid == 0 {
		uid = 54321
	}
	for _, mode := range []string{"report", "plain"} {
		c := command(t, mode, uid)
		c.Env = append(c.Env, "HOME=/kept")
		r := run(t, c)
		if !r.Info.Worker || !r.Info.Rootless || r.UID != 0 || r.GID != 0 || r.Info.UID != int(uid) || r.Info.GID != int(uid) && os.Getuid() == 0 {
			t.Errorf("%s: %+v", mode, r)
		}
		if r.Info.PIDNamespace != (mode == "report") && len(r.Info.Notes) == 0 {
			t.Errorf("%s: pid namespace %t without a note", mode, r.Info.PIDNamespace)
		}
		if r.Info.SingleID && len(r.Info.Notes) == 0 {
			t.Errorf("%s: single id without a note", mode)
		}
		if want := []string{"done", strconv.Itoa(int(uid)), ""}; strings.Join(r.Containers, " ") != strings.Join(want, " ") {
			t.Errorf("%s: variables %q, want %q", mode, r.Containers, want)
		}
		if strings.Trim(r.Inheritable+r.Ambient, "0") != "" || strings.Trim(r.Effective, "0") == "" {
			t.Errorf("%s: capabilities inh %s amb %s eff %s", mode, r.Inheritable, r.Ambient, r.Effective)
		}
		if r.Home != "/kept" {
			t.Errorf("%s: HOME %q", mode, r.Home)
		}
	}
}

// TestEarly: a worker that was started before Enter is the one that is used,
// or is gone when Enter wants another.
func TestEarly(t *testing.T) {
	t.Parallel()
	uid := uint32(os.Getuid())
	if uid == 0 {
		uid = 54321
	}
	for _, c := range []struct {
		mode, command string
		uid           uint32
	}{
		{"report", "build", uid}, {"report", "run", uint32(os.Getuid())}, {"plain", "from", uid},
		{"plain", "build", uid}, {"plain", "build", uint32(os.Getuid())}, {"report", "images", uid},
	} {
		cmd := command(t, c.mode, c.uid)
		cmd.Args = append(cmd.Args, "--flag", c.command, "argument")
		cmd.Env = append(cmd.Env, "HOME=/kept")
		r := run(t, cmd)
		wantWorker := c.uid != 0 || c.mode == "report" && hasSysAdmin()
		if r.Info.Worker != wantWorker || r.Home != "/kept" || r.Containers[2] != "" || r.Info.UID != int(c.uid) {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	c := command(t, "exit", uint32(os.Getuid()))
	var stderr strings.Builder
	c.Stderr = &stderr
	err := c.Run()
	skipWithoutNamespaces(t, stderr.String())
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 7 {
		t.Errorf("%v, want exit status 7", err)
	}
}

// TestSignalsOnce sends signals as a user, a terminal and timeout(1) do.
func TestSignalsOnce(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(front, worker int){
		"front only": func(front, _ int) { syscall.Kill(front, syscall.SIGINT) },
		"group":      func(front, _ int) { syscall.Kill(-front, syscall.SIGINT) },
		"both, one after the other": func(front, worker int) {
			syscall.Kill(front, syscall.SIGTERM)
			if worker > 0 {
				syscall.Kill(worker, syscall.SIGTERM)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command(t, "signal", uint32(os.Getuid()))
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() {
				c.Wait()
				t.Skip("no namespaces here")
			}
			kill(c.Process.Pid, child(c.Process.Pid))
			lines.Scan()
			if err := c.Wait(); err != nil || lines.Text() != "signals 1" {
				t.Errorf("got %q (%v), want one signal", lines.Text(), err)
			}
		})
	}
}

// child returns the first child of a process, or 0.
func child(pid int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		if f := strings.Fields(string(b)); len(f) > 0 {
			n, _ := strconv.Atoi(f[0])
			return n
		}
	}
	return 0
}

func TestKillFrontKillsAll(t *testing.T) {
	t.Parallel()
	c := command(t, "sleep", uint32(os.Getuid()))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout = w
	// The end of this pipe shows when the last process is gone: all have it.
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b := make([]byte, 64)
	if n, _ := r.Read(b); n == 0 {
		c.Wait()
		t.Skip("no namespaces here")
	}
	c.Process.Kill()
	c.Wait()
	r.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := r.Read(b); !errors.Is(err, io.EOF) {
		t.Errorf("something lives on after the front was killed: %v", err)
	}
}

// TestSpoofedVariable: the variable alone does not make a worker.
func TestSpoofedVariable(t *testing.T) {
	needRoot(t)
	t.Parallel()
	c := command(t, "plain", 0)
	c.Env = append(c.Env, early.Variable+"=0:"+strconv.Itoa(unix.CLONE_NEWUSER))
	if r := run(t, c); r.Info.Worker {
		t.Errorf("%+v", r)
	}
}
