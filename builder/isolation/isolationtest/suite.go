package isolationtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

// Suite describes the driver under test.
type Suite struct {
	// New makes the driver; the suite closes it.
	New func(t *testing.T) isolation.Driver
	// Rootless and SingleID are given to every step's Options.
	Rootless, SingleID bool
	// Network of the steps that do not care; "" is host.
	Network isolation.NetworkMode
	// Lacks names what the driver documents that it cannot do; the cases that
	// need it are skipped.
	Lacks []Feature
}

// Feature is something that not every driver has.
type Feature string

const (
	// PIDNamespace: the step's process is number 1 and sees no other.
	PIDNamespace Feature = "pid namespace"
	// IPCNamespace: System V objects die with the step.
	IPCNamespace Feature = "ipc namespace"
	// UTSNamespace: the step has its own hostname.
	UTSNamespace Feature = "uts namespace"
	// CgroupNamespace: the step does not see where its cgroup lies.
	CgroupNamespace Feature = "cgroup namespace"
	// NetworkNone: a network namespace with loopback only.
	NetworkNone Feature = "network none"
	// KernelMounts: /proc, /sys, /dev and below are the step's own.
	KernelMounts Feature = "kernel mounts"
	// Volumes: bind mounts of the user's.
	Volumes Feature = "volumes"
	// PeerGroups: a shared volume is one; crun's are private.
	PeerGroups Feature = "peer groups"
	// Trees: mounts given by descriptor.
	Trees Feature = "trees"
	// Terminal: a pty.
	Terminal Feature = "terminal"
	// Seccomp: the filter.
	Seccomp Feature = "seccomp"
	// Nodev: device nodes of the root cannot be opened.
	Nodev Feature = "nodev"
	// SharedPID: the step can run in the driver's own pid namespace.
	SharedPID Feature = "shared pid namespace"
	// JoinedNamespaces: namespaces given by path and by descriptor.
	JoinedNamespaces Feature = "joined namespaces"
	// KeptGroups: the supplementary groups of the driver's process.
	KeptGroups Feature = "kept groups"
	// Limits: a control group, where one can be made at all.
	Limits Feature = "limits"
	// DetachedRoot: Step.Root may be a detached mount.
	DetachedRoot Feature = "detached root"
)

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	if s.Network == "" {
		s.Network = isolation.NetworkHost
	}
	d := s.New(t)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	if err := d.Available(t.Context()); err != nil {
		t.Skipf("%s: %v", d.Name(), err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range c.needs {
				for _, lacking := range s.Lacks {
					if f == lacking {
						t.Skipf("%s has no %s", d.Name(), f)
					}
				}
			}
			c.run(&env{T: t, s: s, d: d})
		})
	}
}

// testCase is one behaviour.
type testCase struct {
	name  string
	needs []Feature
	run   func(e *env)
}

var cases = join(processCases, identityCases, mountCases, optionCases, hostileCases, lifeCases)

func join(lists ...[]testCase) (all []testCase) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// env is what a case works with.
type env struct {
	*testing.T
	s Suite
	d isolation.Driver
	// owners is given to steps.
	owners *isolation.Owners
}

// Busybox returns the path of a statically linked busybox, or skips.
func Busybox(t testing.TB) string {
	for _, name := range []string{"/bin/busybox", "/usr/bin/busybox", "busybox"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Skip("needs a statically linked busybox (Debian: busybox-static)")
	return ""
}

// NewRoot makes a root with busybox and the mount points that Docker's
// images have, and returns its path.
func NewRoot(t testing.TB) string {
	t.Helper()
	busybox := Busybox(t)
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root", "work"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		write(t, filepath.Join(root, f), "", 0o644)
	}
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", 0o644)
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\nuser:x:1000:\n", 0o644)
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields(applets) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const applets = "sh ls cat echo id env pwd sleep true false hostname grep mount umount unshare mknod readlink " +
	"stat touch rm mkdir ln kill ps ip ipcs dd head tail wc tr sort ulimit cut awk tty stty chmod chown seq test df od nslookup"

func write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

// OpenRoot opens a directory as Step.Root wants it.
func OpenRoot(t testing.TB, path string) *os.File {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	return f
}

// options returns a step that runs a shell script.
func (e *env) options(script string) isolation.Options {
	return isolation.Options{
		Args:     []string{"/bin/sh", "-c", script},
		Env:      []string{"PATH=/bin:/sbin:/usr/bin", "HOME=/root"},
		Network:  e.s.Network,
		Rootless: e.s.Rootless,
		SingleID: e.s.SingleID,
	}
}

// result is what a step left.
type result struct {
	out, errOut string
	err         error
}

// code returns the exit status, or fails the test when the step did not run.
func (e *env) code(r result) int {
	e.Helper()
	if r.err == nil {
		return 0
	}
	var exit *isolation.ExitError
	if !errors.As(r.err, &exit) {
		e.Fatalf("step did not run: %v\nstderr: %s", r.err, r.errOut)
	}
	return exit.Code
}

// must fails the test unless the step succeeded, and returns its output.
func (e *env) must(r result) string {
	e.Helper()
	if r.err != nil {
		e.Fatalf("step: %v\nstdout: %s\nstderr: %s", r.err, r.out, r.errOut)
	}
	return r.out
}

// run executes a step in a fresh root.
func (e *env) run(o isolation.Options) result {
	e.Helper()
	return e.runIn(e.Context(), NewRoot(e), o, nil)
}

// sh executes a script in a fresh root; it must succeed.
func (e *env) sh(script string) string {
	e.Helper()
	return e.must(e.run(e.options(script)))
}

// runIn executes a step in root.
func (e *env) runIn(ctx context.Context, root string, o isolation.Options, stdin *os.File) result {
	e.Helper()
	spec, err := isolation.NewSpec(o)
	if err != nil {
		e.Fatal(err)
	}
	return e.runSpec(ctx, OpenRoot(e, root), spec, stdin)
}

func (e *env) runSpec(ctx context.Context, root *os.File, spec *isolation.Spec, stdin *os.File) result {
	e.Helper()
	if _, err := isolation.MakeTargets(root, spec.Targets()); err != nil {
		return result{err: err}
	}
	outR, outW := pipe(e)
	errR, errW := pipe(e)
	var out, errOut bytes.Buffer
	done := make(chan error, 2)
	go func() { _, err := io.Copy(&out, outR); done <- err }()
	go func() { _, err := io.Copy(&errOut, errR); done <- err }()
	started := time.Now()
	err := e.d.Run(ctx, &isolation.Step{Spec: spec, Root: root, Stdin: stdin, Stdout: outW, Stderr: errW, Owners: e.owners})
	outW.Close()
	errW.Close()
	for range 2 {
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			e.Fatalf("output still open 5 s after Run returned (%v after start): something outlived the step", time.Since(started))
		}
	}
	return result{out.String(), errOut.String(), err}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// equal compares trimmed text.
func (e *env) equal(what, got, want string) {
	e.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		e.Errorf("%s:\ngot  %q\nwant %q", what, strings.TrimSpace(got), strings.TrimSpace(want))
	}
}

// contains checks that each of want occurs in got.
func (e *env) contains(got string, want ...string) {
	e.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			e.Errorf("%q is missing in %q", w, got)
		}
	}
}
