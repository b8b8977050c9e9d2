package runmount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

func openPath(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// tree makes directories, files, a FIFO and links, one of which leads to a
// file outside, whose name it returns.
func tree(t *testing.T) (dir, outside string) {
	t.Helper()
	dir, outside = t.TempDir(), filepath.Join(t.TempDir(), "outside")
	for _, f := range []string{outside, filepath.Join(dir, "f"), filepath.Join(dir, "a/b/g")} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"l": outside, "a/d": filepath.Dir(outside), "a/dangling": "none"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, outside
}

func TestChown(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files to others takes root")
	}
	t.Parallel()
	dir, outside := tree(t)
	if err := Chown(openPath(t, dir), 12, 34); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "f", "a", "a/b", "a/b/g", "l", "a/d", "a/dangling", "fifo"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("%s: %d:%d %v", name, st.Uid, st.Gid, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(outside, &st); err != nil || st.Uid != 0 {
		t.Errorf("a link was followed: %d %v", st.Uid, err)
	}
}

// A tree that is too deep is an error, not a lack of descriptors.
func TestChownOfDeepTrees(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	if err := os.MkdirAll(filepath.Join(top, strings.Repeat("d/", maxDepth+5)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Chown(openPath(t, top), os.Getuid(), os.Getgid()); err == nil || !strings.Contains(err.Error(), "directories lie in each other") {
		t.Error(err)
	}
}

// Row "relabel": the attribute can be written where SELinux is off, too.
func TestRelabel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("labels take root where SELinux is off")
	}
	t.Parallel()
	dir, outside := tree(t)
	label := func(name string) string {
		b := make([]byte, 256)
		n, err := unix.Lgetxattr(name, selinuxXattr, b)
		if err != nil {
			return ""
		}
		return strings.TrimRight(string(b[:n]), "\x00")
	}
	before := label(outside)
	for _, private := range []bool{false, true} {
		if err := Relabel(openPath(t, dir), private); err != nil {
			t.Fatal(err)
		}
		want := label(dir)
		if want == "" {
			t.Skip("the file system takes no labels")
		}
		if categories := strings.Contains(want, ":s0:c"); !strings.HasPrefix(want, "system_u:object_r:container_file_t:s0") || categories != private {
			t.Errorf("private %v: %s", private, want)
		}
		for _, name := range []string{"f", "a/b/g", "l", "a/d", "fifo"} {
			if got := label(filepath.Join(dir, name)); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
	if label(outside) != before {
		t.Error("a link was followed")
	}
}

// TestRemember: with one id, the owners of files and directories are noted,
// and forgotten for root; links are not followed.
func TestRemember(t *testing.T) {
	t.Parallel()
	dir, outside := tree(t)
	noted := []string{dir, filepath.Join(dir, "f"), filepath.Join(dir, "a/b/g")}
	for _, f := range noted {
		if err := unix.Setxattr(f, copier.OwnerXattr, []byte("7:8"), 0); err != nil {
			t.Skip("no attributes of users here: ", err)
		}
	}
	for _, owner := range []copier.Owner{{UID: 12, GID: 34}, {}} {
		if err := Remember(openPath(t, dir), owner); err != nil {
			t.Fatal(err)
		}
		for _, f := range noted {
			fd, err := unix.Open(f, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := copier.Noted(fd)
			unix.Close(fd)
			if got != owner || ok != (owner != copier.Owner{}) {
				t.Errorf("%s: %v, %t; want %v", f, got, ok, owner)
			}
		}
	}
	if _, err := unix.Getxattr(outside, copier.OwnerXattr, nil); err == nil {
		t.Error("a link was followed")
	}
}
