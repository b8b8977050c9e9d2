package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func in(f *os.File, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name) }

// lowers makes n lower directories with one file each.
func lowers(t testing.TB, n int) []*os.File {
	t.Helper()
	dir := t.TempDir()
	all := make([]*os.File, n)
	for i := range all {
		d := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		all[i] = open(t, d)
	}
	return all
}

func scratch(t testing.TB) *Scratch {
	t.Helper()
	s, err := NewScratch(open(t, t.TempDir()), "1", Attr{Mode: 0o1751})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := s.RemoveAll(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func needMounts(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("overlay mounts need root or a user namespace")
	}
}

// ways are the two ways to mount.
var ways = map[string]func(Options) (*os.File, error){"detached": mountDetached, "legacy": mountLegacy}

func TestWritable(t *testing.T) {
	needMounts(t)
	for name, mount := range ways {
		t.Run(name, func(t *testing.T) {
			s := scratch(t)
			root, err := mount(Options{Lowers: lowers(t, 2), Upper: s.Upper, Work: s.Work})
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if fi, err := os.Stat(in(root, ".")); err != nil || fi.Mode().Perm() != 0o751 || fi.Mode()&os.ModeSticky == 0 {
				t.Errorf("the root is %v, %v", fi.Mode(), err)
			}
			if err := os.WriteFile(in(root, "new"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(in(root, "file1")); err != nil {
				t.Fatal(err)
			}
			mounts, _ := os.ReadFile("/proc/self/mountinfo")
			if strings.Contains(string(mounts), t.TempDir()) {
				t.Error("the mount is in the mount namespace")
			}
			if err := root.Close(); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(in(s.Upper, "new")); err != nil || string(b) != "x" {
				t.Errorf("the upper has %q, %v", b, err)
			}
			var st unix.Stat_t
			if err := unix.Lstat(in(s.Upper, "file1"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
				t.Errorf("no whiteout: %o %v", st.Mode, err)
			}
			if err := s.RemoveWork(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	needMounts(t)
	for name, mount := range ways {
		t.Run(name, func(t *testing.T) {
			root, err := mount(Options{Lowers: lowers(t, 2)})
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if _, err := os.Stat(in(root, "file1")); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(in(root, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing: %v", err)
			}
		})
	}
}

func TestManyLowers(t *testing.T) {
	needMounts(t)
	all := lowers(t, MaxLowers+1)
	for name, mount := range ways {
		t.Run(name, func(t *testing.T) {
			s := scratch(t)
			root, err := mount(Options{Lowers: all[:MaxLowers], Upper: s.Upper, Work: s.Work})
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			entries, err := os.ReadDir(in(root, "."))
			if err != nil || len(entries) != MaxLowers {
				t.Errorf("%d entries, %v", len(entries), err)
			}
		})
	}
	_, err := Mount(Options{Lowers: all})
	if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "500") || !strings.Contains(err.Error(), "--squash") {
		t.Errorf("too many: %v", err)
	}
}

// A frozen upper is renamed while it is a lower of the next mount.
func TestLowerMayBeRenamed(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	lower := open(t, filepath.Join(dir, "a"))
	if err := os.WriteFile(in(lower, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	s := scratch(t)
	root, err := Mount(Options{Lowers: []*os.File{lower}, Upper: s.Upper, Work: s.Work})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(in(root, "f")); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.Chmod(in(root, "f"), 0o600); err != nil { // copied up
		t.Error(err)
	}
}

func TestUnprivilegedErrorNamesWhatIsMissing(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("for an unprivileged user")
	}
	_, err := Mount(Options{Lowers: lowers(t, 2)})
	if !errors.Is(err, define.ErrUnsupported) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
		t.Errorf("error %v", err)
	}
}

func TestScratchTaken(t *testing.T) {
	t.Parallel()
	dir := open(t, t.TempDir())
	s, err := NewScratch(dir, "1", Attr{Mode: 0o755, UID: os.Getuid(), GID: os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Mkdir(in(dir, "file"), 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := NewScratch(dir, "no/such", Attr{}); err == nil {
		t.Error("made below a directory that is missing")
	}
	if s.UpperName() != "1/upper" {
		t.Errorf("upper %s", s.UpperName())
	}
	if err := s.RemoveAll(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(in(dir, "1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func BenchmarkMount(b *testing.B) {
	needMounts(b)
	for _, n := range []int{1, 20, 127} {
		all := lowers(b, n)
		for name, mount := range ways {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				dir := open(b, b.TempDir())
				for b.Loop() {
					s, err := NewScratch(dir, "1", Attr{Mode: 0o755})
					if err != nil {
						b.Fatal(err)
					}
					root, err := mount(Options{Lowers: all, Upper: s.Upper, Work: s.Work})
					if err != nil {
						b.Fatal(err)
					}
					root.Close()
					s.Close()
					if err := s.RemoveAll(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
