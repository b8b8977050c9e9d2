package isolationtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// canary is a directory of the host's that no step may touch.
type canary struct{ dir, before string }

func newCanary(t testing.TB) *canary {
	t.Helper()
	c := &canary{dir: t.TempDir()}
	for _, f := range []string{"ptmx", "b", "empty", "hosts", "resolv.conf"} {
		write(t, filepath.Join(c.dir, f), "", 0o600)
	}
	write(t, filepath.Join(c.dir, "token"), "token", 0o640)
	for _, d := range []string{"sub", "pts", "shm"} {
		if err := os.Mkdir(filepath.Join(c.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c.before = listing(t, c.dir)
	return c
}

// check fails the test when anything in the canary changed.
func (c *canary) check(t testing.TB) {
	t.Helper()
	if after := listing(t, c.dir); after != c.before {
		t.Errorf("the host was changed:\nbefore\n%s\nafter\n%s", c.before, after)
	}
}

// listing describes a tree: path, mode, owner, size and times.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d\n", p, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Nano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func link(t testing.TB, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// relink puts a link in the place of a directory of the root.
func relink(t testing.TB, root, name, target string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
		t.Fatal(err)
	}
	link(t, target, filepath.Join(root, name))
}

func readLink(t testing.TB, name string) string {
	t.Helper()
	s, err := os.Readlink(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ownStatus returns a field of this process's status.
func ownStatus(t testing.TB, field string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field); ok {
			return v
		}
	}
	t.Fatalf("no %s in status", field)
	return ""
}

// fileID changes when the file does.
func fileID(t testing.TB, name string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Ino, st.Size, st.Mtim, st.Ctim, st.Mode)
}

// leak makes a copy of f without close-on-exec, for the test's duration.
func leak(t testing.TB, f *os.File) {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 50)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
}

// openTree makes a detached mount of dir.
func openTree(t testing.TB, dir string) *os.File {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Skipf("open_tree: %v", err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), dir)
	t.Cleanup(func() { f.Close() })
	return f
}

// openLink is openTree of a symbolic link itself.
func openLink(t testing.TB, name string) *os.File {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		t.Skipf("open_tree: %v", err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// mountPoints lists this process's mounts.
func mountPoints(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		list = append(list, strings.Fields(line)[4])
	}
	return strings.Join(list, "\n")
}

func makeDevice(t testing.TB, name string, major, minor uint32) {
	t.Helper()
	if err := unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
		t.Skipf("mknod: %v", err)
	}
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
}

func setSize(t testing.TB, f *os.File, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Error(err)
	}
}

// readAll reads a pty until its other side is closed (EIO).
func readAll(f *os.File) string {
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

// mountsOf returns the mounts that this process sees, without those that other
// programs on the machine make meanwhile: of what lies below directories for
// temporary and for changing files, only own's counts.
func mountsOf(t testing.TB, own string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		foreign := strings.HasPrefix(f[4], os.TempDir()+"/") || strings.HasPrefix(f[4], "/tmp/") ||
			strings.HasPrefix(f[4], "/var/") || strings.HasPrefix(f[4], "/run/") || strings.HasPrefix(f[4], "/home/")
		if !foreign || strings.HasPrefix(f[4], own) {
			out.WriteString(line)
		}
	}
	return out.String()
}
