package ocirun

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
	"github.com/stratabuild/strata/define"
)

func TestLastError(t *testing.T) {
	t.Parallel()
	for log, want := range map[string]string{
		"":                              "",
		"x":                             "x",
		`{"level":"warning","msg":"w"}`: "",
		`{"level":"error","msg":"a"}` + "\n" + `{"level":"error","msg":"b\nc"}` + "\n" + `{"level":"info","msg":"d"}`: "b c",
		"junk\n" + `{"level":"error","msg":"a"}`: "a",
		`{"msg":"bare"}`:                         "bare",
		`time="t" level=error msg="exec: \"/x\": a\nb" func="f()"` + "\n" + `time="t" level=debug msg=last`: `exec: "/x": a b`,
		`time="t" level=debug msg=d`: "",
	} {
		if got := lastError([]byte(log)); got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
	}
}

func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"a"}` + "\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := lastError(b); strings.ContainsAny(s, "\n\r") {
			t.Errorf("%q has several lines", s)
		}
	})
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`runc run failed: unable to start container process: exec: "/no/such": stat /no/such: no such file or directory`:   127,
		`runc run failed: unable to start container process: exec: "nosuch": executable file not found in $PATH`:           127,
		`runc run failed: unable to start container process: exec: "/bin/busybox/x": stat /bin/busybox/x: not a directory`: 127,
		`runc run failed: unable to start container process: exec: "/bin": permission denied`:                              126,
		"executable file `nosuch` not found in $PATH: No such file or directory":                                           127,
		"open executable: Not a directory":                                                                                 127,
		"open executable: Permission denied":                                                                               126,
		"open executable: Operation not permitted":                                                                         126,
		"exec container process `/bin/junk`: Exec format error":                                                            126,
		"cgroups in hybrid mode not supported, drop all controllers from cgroupv2":                                         0,
		`runc run failed: unable to start container process: error mounting "x": mount src=x: no such file or directory`:   0,
		`error during container init: error setting rlimits for ready process: operation not permitted: permission denied`: 0,
	} {
		err := notStarted("x", "/bin/program", text)
		var exit *isolation.ExitError
		errors.As(err, &exit)
		if (exit == nil) != (want == 0) || exit != nil && (exit.Code != want || !exit.NotExecuted) {
			t.Errorf("%s: %v, want %d", text, err, want)
		}
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: the cause is lost in %v", text, err)
		}
		if want != 0 && !strings.Contains(err.Error(), `"/bin/program": `) {
			t.Errorf("%s: %v does not name the program", text, err)
		}
	}
}

func TestLoadable(t *testing.T) {
	t.Parallel()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	head := make([]byte, 64)
	if _, err := io.ReadFull(self, head); err != nil {
		t.Fatal(err)
	}
	alien := bytes.Clone(head)
	alien[18], alien[19] = 0xfe, 0xfe
	object := bytes.Clone(head)
	object[16], object[17] = 1, 0
	for name, c := range map[string]struct {
		head []byte
		want bool
	}{
		"self": {head, true}, "script": {[]byte("#!/bin/sh\n"), true}, "empty": {nil, false}, "text": {[]byte("echo hi\n"), false},
		"short": {[]byte("\x7fELF junk"), false}, "another machine": {alien, false}, "object file": {object, false},
	} {
		if got := loadable(c.head); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMissingRuntime(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"no-such-runtime", "/no/such/runtime", "./relative"} {
		d, err := New(Options{Runtime: name})
		if err != nil {
			t.Fatal(err)
		}
		err = d.Available(t.Context())
		if mayMount() != nil {
			t.Skip(mayMount())
		}
		if !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "/usr/bin") == strings.Contains(name, "/") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{Flags: []string{""}}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("empty flag: %v", err)
	}
}

// TestAutomatic: with none named, one that works is taken.
func TestAutomatic(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	d, err := New(Options{TempDir: temp})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	if err := run(t, d, "exit 4"); err == nil || err.Error() != "exit status 4" {
		t.Errorf("%v", err)
	}
	empty(t, temp)
}

func run(t *testing.T, d isolation.Driver, script string) error {
	t.Helper()
	spec, err := isolation.NewSpec(isolation.Options{
		Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin", "HOME=/"}, Rootless: inUserNamespace(), SingleID: inUserNamespace(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.Run(t.Context(), &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, isolationtest.NewRoot(t))})
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left in %s: %v %v", dir, left, err)
	}
}

// fake is a runtime written as a shell script; $LOG is its log.
func fake(t *testing.T, name, script string) string {
	t.Helper()
	if err := mayMount(); err != nil {
		t.Skip(err)
	}
	p := filepath.Join(t.TempDir(), name)
	text := "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --log) LOG=$2;; --root) ROOT=$2;; --pid-file) PID=$2;; run|delete) CMD=$1;; esac; LAST=$1; shift; done\n" + script
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFakeRuntimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script, want string
		code               int
	}{
		{"status", "exit 7", "", 7},
		{"signal", "exit 143", "", 143},
		{"complaint", `echo '{"level":"error","msg":"cannot do"}' >$LOG; exit 1`, "OCI runtime runc: cannot do", 0},
		{"junk in the log", `head -c 3000000 /dev/urandom >$LOG; exit 1`, "", 0},
		{"killed", "kill -9 $$", "killed by signal 9", 0},
		{"leaves state", `[ $CMD = run ] && mkdir -p $ROOT/$LAST && exit 3; rm -r $ROOT/$LAST`, "", 3},
		{"keeps state", `[ $CMD = run ] && mkdir -p $ROOT/$LAST && exit 0; echo '{"level":"error","msg":"busy"}' >$LOG; exit 1`, "delete: busy", 0},
		{"leaves files", "touch extra; mkdir -p a/b; exit 5", "", 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			temp := t.TempDir()
			d, err := New(Options{Runtime: fake(t, "runc", c.script), TempDir: temp})
			if err != nil {
				t.Fatal(err)
			}
			err = run(t, d, "true")
			var exit *isolation.ExitError
			switch {
			case err == nil:
				t.Error("no error")
			case c.code != 0 && (!errors.As(err, &exit) || exit.Code != c.code):
				t.Errorf("%v, want status %d", err, c.code)
			case !strings.Contains(err.Error(), c.want), strings.Contains(err.Error(), "\n"):
				t.Errorf("%q, want %q on one line", err, c.want)
			}
			empty(t, temp)
		})
	}
}

// TestHangingRuntime: one that never gets to start the step is ended.
func TestHangingRuntime(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the grace period")
	}
	d, err := New(Options{Runtime: fake(t, "runc", "sleep 304 & wait"), TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := isolation.NewSpec(isolation.Options{Args: []string{"x"}, Rootless: inUserNamespace(), SingleID: inUserNamespace()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	err = d.Run(ctx, &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, isolationtest.NewRoot(t))})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(started) > 3*grace {
		t.Errorf("%v after %v", err, time.Since(started))
	}
}

// TestEnvironmentOfRuntime: nothing of ours but PATH (CVE-2025-23266's
// family), a directory of its own, and the flags that were asked for.
func TestEnvironmentOfRuntime(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("LD_PRELOAD_CANARY", "token")
	d, err := New(Options{Runtime: fake(t, "other", "env >"+out+"; pwd >>"+out+"; exit 0"), Flags: []string{"--debug"}, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t, d, "true"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil || strings.Contains(string(b), "token") || !strings.Contains(string(b), "strata-oci-") {
		t.Errorf("%s %v", b, err)
	}
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "new", "state")
	d, err := New(Options{Runtime: fake(t, "runc", `[ -d $ROOT ] && [ $ROOT = `+state+` ] && exit 6; exit 1`), StateDir: state, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t, d, "true"); err == nil || err.Error() != "exit status 6" {
		t.Error(err)
	}
}

// TestRefusedRoots: what runtimes follow to the host (CVE-2019-19921,
// CVE-2025-52881, CVE-2024-21626).
func TestRefusedRoots(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		link, target, cwd, volume string
		kind                      error
	}{
		"dev":              {link: "dev", target: "/tmp", kind: define.ErrEscape},
		"proc":             {link: "proc", target: "../../tmp", kind: define.ErrEscape},
		"cwd in proc":      {cwd: "/proc/self/cwd", kind: define.ErrInvalid},
		"cwd by a link":    {link: "lnk", target: "/proc/self/fd/7", cwd: "/lnk", kind: os.ErrNotExist},
		"volume in proc":   {link: "lnk", target: "/proc/self/attr", volume: "/lnk", kind: define.ErrEscape},
		"volume up and in": {link: "lnk", target: "../../../work/../proc/sys", volume: "/lnk/kernel", kind: define.ErrEscape},
		"volume loop":      {link: "lnk", target: "lnk", volume: "/lnk", kind: unix.ELOOP},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := isolationtest.NewRoot(t)
			if c.link != "" {
				if err := errors.Join(os.RemoveAll(filepath.Join(root, c.link)), os.Symlink(c.target, filepath.Join(root, c.link))); err != nil {
					t.Fatal(err)
				}
			}
			o := isolation.Options{Args: []string{"/bin/true"}, Cwd: c.cwd, Rootless: inUserNamespace(), SingleID: inUserNamespace()}
			if c.volume != "" {
				o.Volumes = []isolation.Volume{{Source: t.TempDir(), Target: c.volume}}
			}
			spec, err := isolation.NewSpec(o)
			if err != nil {
				t.Fatal(err)
			}
			d, err := New(Options{Runtime: fake(t, "runc", "exit 9"), TempDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			err = d.Run(t.Context(), &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, root)})
			if !errors.Is(err, c.kind) {
				t.Errorf("%v, want %v", err, c.kind)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	spec := &isolation.Spec{Spec: specs.Spec{
		Version: "1.3.0", Process: &specs.Process{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}},
		Mounts: []specs.Mount{{Destination: "/v", Type: "bind", Source: "/host", Options: []string{"rro"}}, {Destination: "/proc", Type: "proc"}},
		Linux:  &specs.Linux{},
	}}
	r := &oci{path: "/usr/bin/crun"}
	c := r.config(spec, map[string]source{"/v": {"/work/volumes/0", []string{"rbind", "ro"}}}, "id")
	if c.Version != bundleVersion || c.Root.Path != "rootfs" {
		t.Errorf("%+v", c)
	}
	if m := c.Mounts[0]; m.Source != "/work/volumes/0" || !slices.Equal(m.Options, []string{"rbind", "ro"}) {
		t.Errorf("%+v", m)
	}
	if spec.Mounts[0].Source != "/host" || spec.Version != "1.3.0" {
		t.Error("the caller's spec was changed")
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	w := &work{dir: "/w"}
	plain := &specs.Spec{Linux: &specs.Linux{}}
	limited := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	for _, c := range []struct {
		path   string
		userns bool
		spec   *specs.Spec
		want   string
	}{
		{"/usr/bin/crun", false, plain, "--cgroup-manager=disabled"},
		{"/usr/bin/crun-1.20", false, limited, ""},
		{"/usr/sbin/runc", false, plain, ""},
		{"/usr/sbin/runc", true, plain, "--rootless=true"},
		{"/opt/runsc", false, plain, "--ignore-cgroups --network=host"},
		{"/opt/other", true, plain, ""},
	} {
		r := &oci{path: c.path, userns: c.userns}
		if got := strings.Join(r.flags(w, c.spec)[6:], " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
}

func TestOptionsFlags(t *testing.T) {
	t.Parallel()
	o := Options{Flags: []string{"debug", "--log-format=text", "log=a/b", "root=/state", "x=log=1"}}
	if err := o.readFlags(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(o.Flags, " "); got != "--debug --log-format=text --x=log=1" || o.log != "a/b" || o.StateDir != "/state" {
		t.Errorf("%q, log %q, state %q", got, o.log, o.StateDir)
	}
	for _, bad := range []string{"", "--", "log", "--log=", "root", "a\x00b"} {
		o := Options{Flags: []string{bad}}
		if err := o.readFlags(); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestCrunTerminal stands for the suite's case, whose program asks for the
// size at once.
func TestCrunTerminal(t *testing.T) {
	t.Parallel()
	d, err := New(Options{Runtime: installed(t, "crun"), TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	out := make(chan string, 1)
	console := func(m *os.File) {
		defer m.Close()
		if err := unix.IoctlSetWinsize(int(m.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
			t.Error(err)
		}
		if _, err := m.WriteString("line\n"); err != nil {
			t.Error(err)
		}
		b, _ := io.ReadAll(m) // ends with EIO
		out <- string(b)
	}
	spec, err := isolation.NewSpec(isolation.Options{
		Args: []string{"/bin/sh", "-c", "tty; until stty size 2>/dev/null | grep '33 77'; do sleep 0.01; done; read a; echo got $a; exit 7"},
		Env:  []string{"PATH=/bin", "HOME=/"}, Terminal: &isolation.Terminal{Console: console}, Rootless: inUserNamespace(), SingleID: inUserNamespace(),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Run(t.Context(), &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, isolationtest.NewRoot(t))})
	var exit *isolation.ExitError
	if !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("%v", err)
	}
	if got := <-out; !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "33 77") || !strings.Contains(got, "got line") {
		t.Errorf("%q", got)
	}
}

// TestRuncDevices: no device but those of /dev, with CAP_MKNOD either
// (GHSA-g54h-m393-cpwq), and the image's own are dead.
func TestRuncDevices(t *testing.T) {
	t.Parallel()
	if inUserNamespace() || mayMount() != nil {
		t.Skip("needs CAP_MKNOD")
	}
	d, err := New(Options{Runtime: installed(t, "runc"), TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	spec, err := isolation.NewSpec(isolation.Options{
		// The kernel's log: opening it changes nothing.
		Args: []string{"/bin/sh", "-c", "mknod /dev/k c 1 11 && mknod /z c 1 5 || exit 9; (: </dev/k) 2>/dev/null && exit 8; (: </z) 2>/dev/null && exit 7; : </dev/zero"},
		Env:  []string{"PATH=/bin", "HOME=/"}, CapAdd: []string{"MKNOD"},
	})
	if err != nil {
		t.Skip(err)
	}
	if err := d.Run(t.Context(), &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, isolationtest.NewRoot(t))}); err != nil {
		t.Error(err)
	}
}

func BenchmarkRun(b *testing.B) {
	for _, name := range []string{"runc", "crun"} {
		b.Run(name, func(b *testing.B) {
			d, err := New(Options{Runtime: installed(b, name), TempDir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Available(b.Context()); err != nil {
				b.Skip(err)
			}
			spec, err := isolation.NewSpec(isolation.Options{Args: []string{"/bin/true"}, Env: []string{"HOME=/"}, Rootless: inUserNamespace(), SingleID: inUserNamespace()})
			if err != nil {
				b.Fatal(err)
			}
			root := isolationtest.OpenRoot(b, isolationtest.NewRoot(b))
			for b.Loop() {
				if err := d.Run(b.Context(), &isolation.Step{Spec: spec, Root: root}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
