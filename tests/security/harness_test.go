package security

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/testenv"
	"golang.org/x/sys/unix"
)

// place is a host to attack: a store, a home, a temporary directory, and a
// canary that has nothing to do with them.
type place struct {
	t      *testing.T
	binary string
	work   string
	canary string // the tree
	token  string // what is in it
	before string // what it was
	kernel string // its setting that images try to reach by links
	env    []string
	peak   int64 // of the memory of what run executed last, in KiB
}

func newPlace(t *testing.T) *place {
	t.Helper()
	work, err := os.MkdirTemp("", "strata-security-")
	if err != nil {
		t.Fatal(err)
	}
	var random [16]byte
	rand.Read(random[:])
	p := &place{t: t, binary: testenv.Strata(t), work: work, canary: filepath.Join(work, "canary"), token: hex.EncodeToString(random[:])}
	t.Cleanup(func() {
		p.nowhere()
		if err := testenv.RemoveStore(work); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{"store", "home", "tmp", "run", "canary/dir"} {
		p.must(os.MkdirAll(filepath.Join(work, d), 0o755))
	}
	for name, mode := range map[string]fs.FileMode{"file": 0o644, "ptmx": 0o644, "dir/sub": 0o600, "setuid": 0o755 | fs.ModeSetuid, "Dockerfile": 0o644} {
		p.must(os.WriteFile(filepath.Join(p.canary, name), []byte(p.token+"\n"), 0o600))
		p.must(os.Chmod(filepath.Join(p.canary, name), mode))
	}
	p.must(os.WriteFile(filepath.Join(p.canary, "empty"), nil, 0o644))
	// What would be obeyed, if it were read, though nobody would see it.
	p.must(os.WriteFile(filepath.Join(p.canary, "passwd"), []byte("somebody:x:4242:4242:"+p.token+":/:/bin/sh\n"), 0o644))
	p.must(os.WriteFile(filepath.Join(p.canary, "patterns"), []byte("kept\n#"+p.token+"\n"), 0o644))
	p.must(os.Symlink("file", filepath.Join(p.canary, "link")))
	p.must(unix.Mkfifo(filepath.Join(p.canary, "fifo"), 0o644))
	conf := filepath.Join(work, "storage.conf")
	p.must(os.WriteFile(conf, fmt.Appendf(nil, "[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(work, "store", "root"), filepath.Join(work, "store", "run")), 0o600))
	p.env = []string{"CONTAINERS_STORAGE_CONF=" + conf, "HOME=" + filepath.Join(work, "home"), "TMPDIR=" + filepath.Join(work, "tmp"),
		"XDG_RUNTIME_DIR=" + filepath.Join(work, "run"), "PATH=" + os.Getenv("PATH")}
	p.before, p.kernel = p.snapshot(), corePattern()
	id, _ := p.ok("", "pull", "-q", "oci:"+baseimage.Layout(t)+":busybox")
	p.ok("", "tag", strings.TrimSpace(id), "localhost/busybox")
	return p
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// on is the same place for a subtest, whose variables are its own.
func (p *place) on(t *testing.T) *place {
	c := *p
	c.t, c.env = t, slices.Clone(p.env)
	return &c
}

// run executes strata and checks what holds however it ends.
func (p *place) run(stdin string, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binary, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = p.env, p.work, strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	p.must(cmd.Start())
	ended := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- highWater(cmd.Process.Pid, ended) }()
	err := cmd.Wait()
	close(ended)
	p.peak = <-peak
	stdout, stderr = out.String(), errs.String()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	switch {
	case ctx.Err() != nil:
		p.t.Errorf("strata %q takes more than a minute: %s", args, stderr)
	case strings.Contains(stderr, "goroutine ") && strings.Contains(stderr, ".go:"):
		p.t.Errorf("strata %q crashed: %s", args, stderr)
	case code != 0 && strings.Count("\n"+stderr, "\nError: ") != 1:
		p.t.Errorf("strata %q: want one line of an error, exit status %d: %s", args, code, stderr)
	case strings.Contains(stdout+stderr, p.token):
		p.t.Errorf("strata %q: the canary's token is in the output: %s%s", args, stdout, stderr)
	}
	return stdout, stderr, code
}

// highWater is the most memory that a process had until it ended, in KiB. That
// of wait4(2) would count what this process had when it forked.
func highWater(pid int, ended <-chan struct{}) (kib int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, rest, ok := strings.Cut(string(b), "VmHWM:"); ok {
			var n int64
			if _, err := fmt.Sscan(rest, &n); err == nil {
				kib = max(kib, n)
			}
		}
		select {
		case <-ended:
			return kib
		case <-tick.C:
		}
	}
}

// ok is run for what must succeed.
func (p *place) ok(stdin string, args ...string) (stdout, stderr string) {
	p.t.Helper()
	stdout, stderr, code := p.run(stdin, args...)
	if code != 0 {
		p.t.Fatalf("strata %q: exit status %d: %s%s", args, code, stdout, stderr)
	}
	return stdout, stderr
}

// nowhere is the oracle's other half, which reads whole stores: newPlace has
// it done when the test ends.
func (p *place) nowhere() {
	for _, dir := range []string{"store", "tmp", "home", "run"} {
		if at := p.search(filepath.Join(p.work, dir)); at != "" {
			p.t.Errorf("the canary's token is in %s", at)
		}
	}
}

// check is the oracle for what lies outside of the store.
func (p *place) check() {
	p.t.Helper()
	if now := p.snapshot(); now != p.before {
		p.t.Errorf("the canary changed, from\n%sto\n%s", p.before, now)
	}
	if left, _ := os.ReadDir(filepath.Join(p.work, "tmp")); len(left) > 0 {
		p.t.Errorf("left in the temporary directory: %v", left)
	}
	if now := corePattern(); now != p.kernel {
		p.t.Errorf("the kernel's core_pattern changed from %q to %q", p.kernel, now)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), p.work) {
		p.t.Errorf("a mount is left (%v)", err)
	}
}

func corePattern() string {
	b, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
	return string(b)
}

// snapshot is everything about the canary that an attack might change.
func (p *place) snapshot() string {
	var b strings.Builder
	err := filepath.WalkDir(p.canary, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d.%d", strings.TrimPrefix(path, p.canary), st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
		names := make([]byte, 4096)
		if n, err := unix.Llistxattr(path, names); err == nil {
			fmt.Fprintf(&b, " %q", names[:n])
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(content))
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			fmt.Fprintf(&b, " -> %s", to)
		}
		b.WriteString("\n")
		return nil
	})
	p.must(err)
	return b.String()
}

// search looks for the token below dir, in names and contents. What this user
// may not read is left out: as root there is no such thing.
func (p *place) search(dir string) (at string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint: nilerr
		case strings.Contains(d.Name(), p.token):
			at = path
		case d.Type().IsRegular():
			f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
			if err != nil {
				return nil //nolint: nilerr
			}
			defer f.Close()
			if fi, err := f.Stat(); err != nil || fi.Size() > 64<<20 {
				return nil //nolint: nilerr
			}
			content, _ := os.ReadFile(path)
			if bytes.Contains(content, []byte(p.token)) {
				at = path
			}
		}
		return nil
	})
	return at
}

// context writes a directory to build from: files by name, and symbolic links
// where the content begins with "-> ".
func (p *place) context(files map[string]string) string {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.work, "context-")
	p.must(err)
	for name, content := range files {
		path := filepath.Join(dir, name)
		p.must(os.MkdirAll(filepath.Dir(path), 0o755))
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			p.must(os.Symlink(to, path))
			continue
		}
		p.must(os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}
