package runmount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// Row "tmpcopyup": many files, hard links, attributes, holes, odd modes and
// times; what a link of the root names is looked up in the root.
func TestCopyUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	top := filepath.Join(dir, "we*[ir]d")
	if err := os.MkdirAll(filepath.Join(top, "sub/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(top, "sub", fmt.Sprint(i)), []byte(fmt.Sprint(i)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Link(filepath.Join(top, "sub/1"), filepath.Join(top, "one")))
	must(os.Symlink("/etc", filepath.Join(top, "etc")))
	must(os.Symlink("/we*[ir]d", filepath.Join(dir, "link")))
	must(os.Symlink(t.TempDir(), filepath.Join(dir, "out")))
	must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	hole := filepath.Join(top, "hole")
	must(os.WriteFile(hole, []byte("x"), 0o644))
	must(os.Truncate(hole, 1<<30))
	attr := unix.Setxattr(filepath.Join(top, "sub/2"), "user.test", []byte("value"), 0)
	must(unix.Chmod(filepath.Join(top, "sub/empty"), 0o1733))
	must(unix.Chmod(top, 0o2751))
	past := []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: 3, Nsec: 4}}
	must(unix.UtimesNanoAt(unix.AT_FDCWD, top, past, 0))

	root := openPath(t, dir)
	for _, keep := range []bool{false, true} {
		to, err := Tmpfs(64<<20, 0o700)
		if errors.Is(err, unix.EPERM) {
			t.Skip("no tmpfs can be made here")
		}
		must(err)
		defer to.Close()
		must(CopyUp(t.Context(), root, "/link", to, keep, os.Getuid() != 0))
		at := func(name string) (st unix.Stat_t) {
			t.Helper()
			must(unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW))
			return st
		}
		want := uint32(0o2751)
		if keep {
			want = 0o700
		}
		if st := at("."); st.Mode&0o7777 != want || st.Mtim.Sec != 3 || st.Mtim.Nsec != 4 {
			t.Errorf("the root: %o %v, want %o", st.Mode, st.Mtim, want)
		}
		if a, b := at("one"), at("sub/1"); a.Ino != b.Ino || a.Nlink != 2 {
			t.Error("the hard link is a file of its own")
		}
		if st := at("hole"); st.Size != 1<<30 || st.Blocks > 100 {
			t.Errorf("the hole has %d blocks", st.Blocks)
		}
		if st := at("sub/empty"); st.Mode&0o7777 != 0o1733 {
			t.Errorf("mode %o", st.Mode)
		}
		if st := at("etc"); st.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Error("a link below was followed")
		}
		at("sub/1999")
		if attr == nil && keep {
			b := make([]byte, 16)
			n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d/sub/2", to.Fd()), "user.test", b)
			if err != nil || string(b[:n]) != "value" {
				t.Errorf("attribute: %q %v", b[:max(n, 0)], err)
			}
		}
	}
	for name, want := range map[string]error{"/none": nil, "/out": nil, "/file": define.ErrInvalid} {
		to, err := Tmpfs(1<<20, 0o755)
		must(err)
		defer to.Close()
		if err := CopyUp(t.Context(), root, name, to, false, true); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
