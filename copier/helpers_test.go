package copier

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/fstree"
	"golang.org/x/sys/unix"
)

// bothWays runs a test with openat2(2) and with the walk that replaces it.
func bothWays(t *testing.T, f func(t *testing.T, walk bool)) {
	t.Helper()
	t.Run("openat2", func(t *testing.T) { t.Parallel(); f(t, false) })
	t.Run("walk", func(t *testing.T) { t.Parallel(); f(t, true) })
}

// makeRoot opens a new directory that holds what spec describes.
func makeRoot(t testing.TB, spec string, walk bool) (*Root, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	fstree.Make(t, dir, spec)
	return openRoot(t, dir, walk), dir
}

func openRoot(t testing.TB, dir string, walk bool) *Root {
	t.Helper()
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.walk = walk
	t.Cleanup(func() { r.Close() })
	return r
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// checkTree compares a tree with lines, in which OWN is the caller's owner.
func checkTree(t testing.TB, dir, want string, opts ...fstree.Option) {
	t.Helper()
	got := fstree.MustDump(t, dir, opts...)
	want = own(strings.TrimLeft(want, "\n"))
	if got != want {
		t.Errorf("tree is\n%swant\n%s", got, want)
	}
}

func own(s string) string {
	return strings.ReplaceAll(s, "OWN", fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()))
}

// self is the caller as an owner, for tests that any user can run.
func self() *Owner { return &Owner{os.Geteuid(), os.Getegid()} }

// canary makes a tree outside of all roots and checks at the end that nothing
// in it changed.
func canary(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "canary")
	fstree.Make(t, dir, `
/dir/sub/file file 0640 "token-in-sub"
/file file 0600 "token"
/empty file 0644 ""
/pipe fifo 0600
/link link -> file
`)
	before := fstree.MustDump(t, dir, fstree.Contents, fstree.Times)
	t.Cleanup(func() {
		if after := fstree.MustDump(t, dir, fstree.Contents, fstree.Times); after != before {
			t.Errorf("outside of the root is now\n%swas\n%s", after, before)
		}
	})
	return dir
}

// openFDs counts the descriptors of this process, to find ones left open.
func openFDs(t testing.TB) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(l)
}

func blocks(t testing.TB, p string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func mkfifo(p string) error { return unix.Mkfifo(p, 0o600) }

// makeDeep makes levels of directories, each with a file, below dir; the path
// of the last one is longer than any system call takes.
func makeDeep(t testing.TB, dir, name string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		f, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(f)
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
}
