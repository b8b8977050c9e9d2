package chroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
	"github.com/stratabuild/strata/define"
)

// result is what a step without mounts left.
type result struct {
	out string
	err error
}

func (r result) code(t *testing.T) int {
	t.Helper()
	var exit *isolation.ExitError
	if r.err == nil {
		return 0
	}
	if !errors.As(r.err, &exit) {
		t.Fatalf("step did not run: %v", r.err)
	}
	return exit.Code
}

func options(script string) isolation.Options {
	return isolation.Options{
		Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin", "HOME=/root"},
		Rootless: os.Getenv(inside) != "", SingleID: os.Getenv(inside) != "",
	}
}

// bareDriver skips where there is no CAP_SYS_CHROOT.
func bareDriver(t *testing.T) isolation.Driver {
	t.Helper()
	d, err := New(Options{NoMounts: true, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	return d
}

func bareIn(ctx context.Context, t *testing.T, root string, o isolation.Options) result {
	t.Helper()
	d := bareDriver(t)
	spec, err := isolation.NewSpec(o)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { _, err := io.Copy(&out, r); done <- err }()
	err = d.Run(ctx, &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, root), Stdout: w, Stderr: w})
	w.Close()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("output is still open: something outlived the step")
	}
	return result{out.String(), err}
}

func bare(t *testing.T, script string) result {
	t.Helper()
	return bareIn(t.Context(), t, isolationtest.NewRoot(t), options(script))
}

func TestBareStatus(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -9 $$": 137, "kill $$": 143, "nosuch": 127} {
		if got := bare(t, script).code(t); got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
	}
	root := isolationtest.NewRoot(t)
	if err := os.WriteFile(root+"/bin/junk", []byte("\x7fELF junk"), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]int{"/no/such": 127, "nosuch": 127, "/etc/passwd/x": 127, "/etc/passwd": 126, "/bin": 126, "junk": 126} {
		o := options("")
		o.Args = []string{program}
		if got := bareIn(t.Context(), t, root, o).code(t); got != want {
			t.Errorf("%s: %d, want %d", program, got, want)
		}
	}
}

func TestBareSignal(t *testing.T) {
	t.Parallel()
	var exit *isolation.ExitError
	if err := bare(t, "kill -9 $$").err; !errors.As(err, &exit) || exit.Signal != 9 {
		t.Errorf("%v", err)
	}
}

// snapshot describes what a step must leave as it was: names, modes, owners,
// inodes and times of modification.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	s, err := look(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// look is snapshot for a dir that another process may be changing: what goes away meanwhile is an error.
func look(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d %d\n", strings.TrimPrefix(p, dir), st.Mode, st.Uid, st.Gid, st.Size, st.Ino, st.Mtim.Nano())
		return nil
	})
	return b.String(), err
}

func TestBareGivesBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, root string)
		script  string
	}{
		"as it is":  {func(*testing.T, string) {}, "cat /etc/resolv.conf /etc/hosts; ls /dev"},
		"no files":  {func(t *testing.T, root string) { remove(t, root, "etc/hosts", "etc/resolv.conf", "etc/hostname") }, "cat /etc/hosts"},
		"a link":    {func(t *testing.T, root string) { relink(t, root, "etc/resolv.conf", "/run/resolv.conf") }, "cat /etc/resolv.conf"},
		"overwrite": {func(*testing.T, string) {}, "echo mine >/etc/resolv.conf; rm /etc/hosts; chmod 600 /etc/hostname"},
		"replaced":  {func(*testing.T, string) {}, "rm /etc/hosts; mkdir -p /etc/hosts/a/b; ln -s /bin /etc/hosts/a/c"},
		"dev there": {func(t *testing.T, root string) {
			if err := os.WriteFile(root+"/dev/null", []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "true"},
		"no dev": {func(t *testing.T, root string) { remove(t, root, "dev") }, "true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := isolationtest.NewRoot(t)
			c.prepare(t, root)
			before := snapshot(t, root)
			if r := bareIn(t.Context(), t, root, options(c.script)); r.err != nil {
				t.Errorf("%v: %s", r.err, r.out)
			}
			if after := snapshot(t, root); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// TestBareOriginalRemoved: the step finds what was put aside, and removes it.
func TestBareOriginalRemoved(t *testing.T) {
	t.Parallel()
	root := isolationtest.NewRoot(t)
	if err := errors.Join(os.WriteFile(root+"/etc/hosts", []byte("old content"), 0o640), os.Chmod(root+"/etc/hosts", 0o640)); err != nil {
		t.Fatal(err)
	}
	if r := bareIn(t.Context(), t, root, options("rm -f /etc/.strata-*")); r.err != nil {
		t.Fatal(r.err, r.out)
	}
	b, err := os.ReadFile(root + "/etc/hosts")
	st, err2 := os.Stat(root + "/etc/hosts")
	if err != nil || err2 != nil || string(b) != "old content" || st.Mode() != 0o640 {
		t.Errorf("%q %v %v %v", b, st, err, err2)
	}
}

// TestBareHostileRoot: links of the root lead nowhere outside (CVE-2019-19921
// and its kin; CVE-2024-23652: the clean-up follows none either).
func TestBareHostileRoot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ from, script string }{
		"etc":   {"etc", "true"},
		"dev":   {"dev", "true"},
		"hosts": {"etc/hosts", "echo x >/etc/hosts"},
		// The step swaps what was borrowed for links.
		"swapped file":  {"", "rm -f /etc/hosts; ln -s CANARY/f /etc/hosts"},
		"swapped dir":   {"", "mv /etc /etc2; ln -s CANARY /etc; mv /dev /dev2; ln -s CANARY /dev"},
		"tree of links": {"", "rm -f /etc/hosts; mkdir /etc/hosts; ln -s CANARY /etc/hosts/d; ln -s CANARY/f /etc/hosts/f; ln -s ../../../../../../../../../CANARY /etc/hosts/r"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, canary := isolationtest.NewRoot(t), t.TempDir()
			for _, f := range []string{"f", "hosts", "resolv.conf", "hostname", "null"} {
				if err := os.WriteFile(filepath.Join(canary, f), []byte("token"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := snapshot(t, canary)
			if c.from != "" {
				if err := os.RemoveAll(filepath.Join(root, c.from)); err != nil {
					t.Fatal(err)
				}
				relink(t, root, c.from, canary)
			}
			r := bareIn(t.Context(), t, root, options(strings.ReplaceAll(c.script, "CANARY", canary)))
			if after := snapshot(t, canary); after != before {
				t.Errorf("the host was changed (%v):\nbefore\n%s\nafter\n%s", r.err, before, after)
			}
		})
	}
}

func TestBareDevices(t *testing.T) {
	t.Parallel()
	r := bare(t, "echo x >/dev/null && head -c 3 /dev/zero | wc -c")
	if os.Getenv(inside) != "" || r.err != nil && !canMknod(t) {
		t.Skip("device nodes cannot be made here")
	}
	if r.err != nil || strings.TrimSpace(r.out) != "3" {
		t.Errorf("%q %v", r.out, r.err)
	}
}

func canMknod(t *testing.T) bool {
	return unix.Mknod(filepath.Join(t.TempDir(), "n"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) == nil
}

// TestBareNoEscape: the way out of a chroot is another chroot.
func TestBareNoEscape(t *testing.T) {
	t.Parallel()
	if r := bare(t, "/bin/busybox chroot /work /bin/true 2>&1"); r.err == nil || !strings.Contains(r.out, "not permitted") {
		t.Errorf("%q %v", r.out, r.err)
	}
}

func TestBareRefuses(t *testing.T) {
	t.Parallel()
	o := options("true")
	o.Volumes = []isolation.Volume{{Source: t.TempDir(), Target: "/work"}}
	if r := bareIn(t.Context(), t, isolationtest.NewRoot(t), o); !errors.Is(r.err, define.ErrUnsupported) || !strings.Contains(r.err.Error(), "/work") {
		t.Errorf("volume: %v", r.err)
	}
	for _, cwd := range []string{"/nowhere", "/etc/passwd", "/lnk"} {
		root := isolationtest.NewRoot(t)
		relink(t, root, "lnk", "/proc/self/cwd")
		o := options("pwd")
		o.Cwd = cwd
		if r := bareIn(t.Context(), t, root, o); r.err == nil || !strings.Contains(r.err.Error(), cwd) {
			t.Errorf("%s: %v", cwd, r.err)
		}
	}
}

// TestBareLeavesNothing: daemons, ignored signals, and processes that start
// new ones as fast as they are ended.
func TestBareLeavesNothing(t *testing.T) {
	t.Parallel()
	started := time.Now()
	r := bare(t, `sleep 301 & (trap '' TERM HUP INT; sleep 301 & wait) &
		for i in 1 2 3; do (while :; do sleep 0.01 & sleep 0.01; done) & done
		(sh -c 'sh -c "sleep 301 & sleep 301" &' &); sleep 0.2`)
	if r.err != nil {
		t.Error(r.err)
	}
	if d := time.Since(started); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestBareCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	root := isolationtest.NewRoot(t)
	before := snapshot(t, root)
	started := time.Now()
	if r := bareIn(ctx, t, root, options("sleep 300")); !errors.Is(r.err, context.Canceled) {
		t.Error(r.err)
	}
	if d := time.Since(started); d > 8*time.Second {
		t.Errorf("took %v", d)
	}
	if after := snapshot(t, root); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// TestMonitorKilled: a hostile step kills the monitor and leaves a daemon.
func TestMonitorKilled(t *testing.T) {
	t.Parallel()
	d, err := New(Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	g := newGroup()
	if g == nil {
		t.Skip("no cgroup of version 2 can be made here")
	}
	if err := g.remove(); err != nil {
		t.Fatal(err)
	}
	spec, err := isolation.NewSpec(options("(sleep 302 &) ; kill -9 $PPID; sleep 302"))
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = d.Run(t.Context(), &isolation.Step{Spec: spec, Root: isolationtest.OpenRoot(t, isolationtest.NewRoot(t)), Stdout: w})
	w.Close()
	if err == nil || !strings.Contains(err.Error(), "monitor") {
		t.Errorf("error %v", err)
	}
	if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("a process of the step's is left: %v", err)
	}
}

// victim makes this test binary run a step in the root it names.
const victim = "STRATA_CHROOT_TEST_VICTIM"

// TestBareDriverKilled: when the caller is killed, the step ends and the root
// is given back.
func TestBareDriverKilled(t *testing.T) {
	if root := os.Getenv(victim); root != "" {
		bareIn(t.Context(), t, root, options("echo $$ >/tmp/pid; sleep 303"))
		return
	}
	bareDriver(t)
	root := isolationtest.NewRoot(t)
	before := snapshot(t, root+"/etc")
	old, _ := filepath.Glob("/sys/fs/cgroup/unified/strata-chroot-*") // other tests'
	fresh := func(g string) bool {
		procs, err := os.ReadFile(g + "/cgroup.procs")
		return !slices.Contains(old, g) && err == nil && len(procs) == 0
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestBareDriverKilled$")
	// What the victim cannot delete any more is deleted with the test.
	cmd.Env = append(os.Environ(), victim+"="+root, "TMPDIR="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for range 1000 {
		b, err := os.ReadFile(root + "/tmp/pid")
		if pid, _ = strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if pid == 0 {
		t.Error("the step did not start")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	var after string
	var err error
	for range 1000 {
		if after, err = look(root + "/etc"); err != nil {
			after = err.Error() // the reaper is giving the files back just now
		}
		left, _ := filepath.Glob("/sys/fs/cgroup/unified/strata-chroot-*")
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, os.ErrNotExist) && after == before && !slices.ContainsFunc(left, fresh) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is left, or the root is not as it was:\nbefore\n%s\nafter\n%s", pid, before, after)
}

func BenchmarkRun(b *testing.B) {
	for name, o := range map[string]Options{"mounts": {}, "bare": {NoMounts: true}} {
		b.Run(name, func(b *testing.B) {
			o.TempDir = b.TempDir()
			d, err := New(o)
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Available(b.Context()); err != nil {
				b.Skip(err)
			}
			spec, err := isolation.NewSpec(options("true"))
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

func remove(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.Remove(filepath.Join(root, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func relink(t *testing.T, root, name, target string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
		t.Fatal(err)
	}
}
