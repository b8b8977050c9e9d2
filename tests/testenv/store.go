package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Store is a temporary store.
type Store struct {
	// Dir holds the two roots.
	Dir, Root, RunRoot string
}

// NewStore makes a store's directories and removes them when the test ends.
func NewStore(t testing.TB) Store {
	t.Helper()
	s, err := MakeStore("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveStore(s.Dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// MakeStore is NewStore for programs that are no tests: the caller removes it
// with RemoveStore. It lies in parent, "" being the temporary directory.
func MakeStore(parent string) (Store, error) {
	dir, err := os.MkdirTemp(parent, "strata-store-")
	if err != nil {
		return Store{}, err
	}
	s := Store{Dir: dir, Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run")}
	return s, errors.Join(os.Mkdir(s.Root, 0o700), os.Mkdir(s.RunRoot, 0o700))
}

// Args puts the flags that choose the store in front of a command line of
// strata, buildah, podman or skopeo.
func (s Store) Args(args ...string) []string {
	return append([]string{"--root", s.Root, "--runroot", s.RunRoot}, args...)
}

// RemoveStore removes a directory with all stores below it: mounts that a
// tool left there (containers/storage binds the driver's directory onto
// itself) are detached first, directories without permissions are opened,
// and files of mapped ids are removed in a user namespace. It refuses to
// remove the home or the working directory and the like. What does not exist is no
// error.
func RemoveStore(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if holdsHome(real) {
		return fmt.Errorf("%s holds more than a store: it is not removed", real)
	}
	if err := unmountBelow(real); err != nil {
		return err
	}
	if err := removeAll(real); err == nil {
		return nil
	} else if os.Geteuid() == 0 {
		return err
	}
	if out, err := inMappedNamespace("rm", "-rf", "--", real); err != nil {
		return fmt.Errorf("remove %s in a user namespace: %w: %s", real, err, firstLine(out))
	}
	return nil
}

// holdsHome reports whether dir is, or lies above, what a mistake must never
// remove.
func holdsHome(dir string) bool {
	home, _ := os.UserHomeDir()
	wd, _ := os.Getwd()
	for _, keep := range []string{home, wd, os.TempDir(), "/usr", "/etc", "/var/tmp", "/var/lib/containers"} {
		if keep != "" && (dir == "/" || dir == keep || strings.HasPrefix(keep, dir+"/")) {
			return true
		}
	}
	return false
}

// removeAll is os.RemoveAll for trees with directories that nobody may enter.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		// WalkDir calls once before it reads a directory: early enough.
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// unmountBelow detaches the mounts at and below dir, the youngest first. It
// never touches any other.
func unmountBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

// unescape undoes mountinfo's octal escapes (proc_pid_mountinfo(5)).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
