package isolationtest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/builder/isolation"
)

var processCases = []testCase{
	{name: "exit status", run: func(e *env) {
		for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "exit 125": 125, "exit 126": 126, "nosuchprogram": 127} {
			r := e.run(e.options(script))
			if got := e.code(r); got != want {
				e.Errorf("%q: exit status %d, want %d", script, got, want)
			}
			if exit := (*isolation.ExitError)(nil); errors.As(r.err, &exit) && exit.NotExecuted {
				e.Errorf("%q: the shell ran", script)
			}
		}
	}},
	{name: "killed by a signal", run: func(e *env) {
		if got := e.code(e.run(e.options("sh -c 'kill -9 $$'; exit $?"))); got != 137 {
			e.Errorf("child killed: exit status %d, want 137", got)
		}
	}},
	{name: "program not found is 127", run: func(e *env) {
		for _, args := range [][]string{{"/no/such"}, {"no-such"}, {"/etc/passwd/x"}} {
			o := e.options("")
			o.Args = args
			r := e.run(o)
			e.notExecuted(r, 127, strconv.Quote(args[0])+": not found")
		}
	}},
	{name: "program not executable is 126", run: func(e *env) {
		for _, args := range [][]string{{"/etc/passwd"}, {"/bin"}} {
			o := e.options("")
			o.Args = args
			r := e.run(o)
			e.notExecuted(r, 126, strconv.Quote(args[0])+": ")
		}
	}},
	{name: "program of a wrong format is 126", run: func(e *env) {
		root := NewRoot(e)
		write(e, filepath.Join(root, "bin/junk"), "\x7fELF junk", 0o755)
		o := e.options("")
		o.Args = []string{"junk"}
		e.notExecuted(e.runIn(e.Context(), root, o, nil), 126, `junk": `)
	}},
	{name: "program is found in PATH of the step", run: func(e *env) {
		root := NewRoot(e)
		if err := os.Mkdir(filepath.Join(root, "opt"), 0o755); err != nil {
			e.Fatal(err)
		}
		write(e, filepath.Join(root, "opt/prog"), "#!/bin/sh\necho \"$0 $1\"\n", 0o755)
		o := e.options("")
		o.Args = []string{"prog", "a b"}
		o.Env = []string{"PATH=/nowhere:/opt"}
		e.equal("output", e.must(e.runIn(e.Context(), root, o, nil)), "/opt/prog a b")
	}},
	{name: "output streams", run: func(e *env) {
		r := e.run(e.options("echo out; echo err >&2"))
		e.must(r)
		e.equal("stdout", r.out, "out")
		e.equal("stderr", r.errOut, "err")
	}},
	{name: "no stdin is empty", run: func(e *env) {
		e.equal("wc", e.sh("wc -c"), "0")
	}},
	{name: "stdin", run: func(e *env) {
		r, w := pipe(e)
		if _, err := w.WriteString("hello"); err != nil {
			e.Fatal(err)
		}
		w.Close()
		e.equal("cat", e.must(e.runIn(e.Context(), NewRoot(e), e.options("cat"), r)), "hello")
	}},
	{name: "environment is exact", run: func(e *env) {
		// CVE-2021-3602, CVE-2026-57231: entries of an image that have no value
		// must not be filled from the host.
		e.Setenv("CANARY_TOKEN", "leaked")
		o := e.options("")
		o.Args = []string{"/bin/env"}
		o.Env = []string{"A=1", "CANARY_TOKEN", "*", "CANARY*", "=x", "", "B=two words"}
		lines := strings.Split(strings.TrimSpace(e.must(e.run(o))), "\n")
		slices.Sort(lines)
		e.equal("env", strings.Join(lines, ";"), "A=1;B=two words")
		e.equal("environ", strings.ReplaceAll(e.sh("tr '\\0' ' ' </proc/self/environ"), "CANARY_TOKEN", "LEAK"), "")
	}},
	{name: "only the standard descriptors", run: func(e *env) {
		// CVE-2024-21626. One of our own without close-on-exec must not get in.
		f, err := os.Open("/")
		if err != nil {
			e.Fatal(err)
		}
		defer f.Close()
		leak(e, f)
		// ls itself opens the directory as 3.
		e.equal("fds", strings.Join(strings.Fields(e.sh("ls /proc/self/fd")), " "), "0 1 2 3")
	}},
	{name: "signals are at their defaults", run: func(e *env) {
		o := e.options("")
		o.Args = []string{"/bin/grep", "-E", "SigBlk|SigIgn", "/proc/self/status"} // a shell has its own
		out := e.must(e.run(o))
		e.equal("signals", strings.Join(strings.Fields(out), " "), "SigBlk: 0000000000000000 SigIgn: 0000000000000000")
	}},
	{name: "umask", run: func(e *env) { e.equal("umask", e.sh("umask"), "0022") }},
	{name: "large environment and arguments", run: func(e *env) {
		// CVE-2021-43784: a long set-up message must not lose anything.
		o := e.options("test ${#BIG} = 120000 && test ${#B9} = 120000 && cat /proc/sys/kernel/hostname")
		o.Hostname = "kept"
		o.Env = append(o.Env, "BIG="+strings.Repeat("x", 120000))
		for i := range 10 {
			o.Env = append(o.Env, "B"+string(rune('0'+i))+"="+strings.Repeat("y", 120000))
		}
		out := e.must(e.run(o))
		if !slices.Contains(e.s.Lacks, UTSNamespace) {
			e.equal("hostname", out, "kept")
		}
	}},
	{name: "too large an environment is a clear failure", run: func(e *env) {
		o := e.options("true")
		for range 160 {
			o.Env = append(o.Env, "X="+strings.Repeat("x", 120000))
		}
		r := e.run(o)
		if r.err == nil {
			e.Error("19 MiB of environment ran")
		}
	}},
	{name: "ulimits", run: func(e *env) {
		o := e.options("ulimit -Sn; ulimit -Hn; ulimit -Sc")
		o.Ulimits = []string{"nofile=100:200", "core=0"}
		e.equal("ulimit", strings.Join(strings.Fields(e.must(e.run(o))), " "), "100 200 0")
	}},
	{name: "working directory", run: func(e *env) {
		o := e.options("pwd; readlink /proc/self/cwd")
		o.Cwd = "/work"
		e.equal("pwd", strings.Join(strings.Fields(e.must(e.run(o))), " "), "/work /work")
	}},
	{name: "working directory is missing or a file", run: func(e *env) {
		for _, cwd := range []string{"/nowhere", "/etc/passwd"} {
			o := e.options("pwd")
			o.Cwd = cwd
			r := e.run(o)
			if r.err == nil {
				e.Errorf("%s: step ran in %s", cwd, r.out)
			} else {
				e.contains(r.err.Error(), cwd)
			}
		}
	}},
	{name: "terminal", needs: []Feature{Terminal}, run: func(e *env) { e.terminal() }},
	{name: "no controlling terminal without one", run: func(e *env) {
		if got := e.code(e.run(e.options("echo x >/dev/tty"))); got == 0 {
			e.Error("/dev/tty could be opened")
		}
	}},
}

// notExecuted checks the error of a program that could not be executed.
func (e *env) notExecuted(r result, code int, reason string) {
	e.Helper()
	var exit *isolation.ExitError
	if !errors.As(r.err, &exit) || exit.Code != code || !exit.NotExecuted || !strings.Contains(exit.Reason, reason) {
		e.Errorf("%v, want exit status %d, and %s, of a program that was not executed", r.err, code, reason)
	}
}

// terminal runs a step on a pty.
func (e *env) terminal() {
	o := e.options("tty; test -t 0 && test -t 1 && test -t 2 && echo three; stty size; echo x >/dev/tty; read a; echo got $a; " +
		// A runtime carries a new size on when it comes to it.
		`i=0; until [ "$(stty size)" = "34 78" ] || [ $i = 200 ]; do i=$((i+1)); sleep 0.05; done; stty size`)
	out := make(chan string, 1)
	o.Terminal = &isolation.Terminal{Size: isolation.TerminalSize{Rows: 33, Columns: 77}, Console: func(m *os.File) {
		defer m.Close()
		setSize(e, m, 34, 78)
		if _, err := m.WriteString("line\n"); err != nil {
			e.Error(err)
		}
		out <- readAll(m)
	}}
	spec, err := isolation.NewSpec(o)
	if err != nil {
		e.Fatal(err)
	}
	err = e.d.Run(e.Context(), &isolation.Step{Spec: spec, Root: OpenRoot(e, NewRoot(e))})
	if err != nil {
		e.Error(err)
	}
	select {
	case got := <-out:
		e.contains(got, "/dev/pts/0", "three", "x\r\n", "got line", "34 78")
		if !strings.Contains(got, "33 77") && strings.Count(got, "34 78") != 2 {
			e.Errorf("the program started without a size: %q", got)
		}
	default:
		e.Error("Console was not called, or Run did not wait for it")
	}
}
