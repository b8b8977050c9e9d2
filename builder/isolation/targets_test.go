package isolation

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var someTargets = []Target{{Path: "/proc", Dir: true}, {Path: "/a/b/c", Dir: true}, {Path: "/a/b/d"}, {Path: "/etc/hosts", Cover: true}}

func TestSkeleton(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for range 2 { // the second time all is there
		if err := Skeleton(open(t, dir), someTargets); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.ModTime().Equal(time.Unix(0, 0)) {
			t.Errorf("%s is of %v", p, info.ModTime())
		}
		got = append(got, strings.TrimPrefix(p, dir)+" "+info.Mode().String())
		return nil
	})
	want := []string{"/a drwxr-xr-x", "/a/b drwxr-xr-x", "/a/b/c drwxr-xr-x", "/a/b/d -rw-r--r--",
		"/etc drwxr-xr-x", "/etc/hosts -rw-r--r--", "/proc drwxr-xr-x"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q (%v)\nwant %q", got, err, want)
	}
}

func TestMakeTargets(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	past := time.Unix(1e9, 0)
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "etc"), past, past); err != nil {
		t.Fatal(err)
	}
	made, err := MakeTargets(open(t, dir), someTargets[3:])
	if err != nil || !slices.Equal(made, []string{"/etc/hosts"}) {
		t.Errorf("made %q (%v)", made, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "etc")); err != nil || !info.ModTime().Equal(past) {
		t.Errorf("the time of /etc changed: %v (%v)", info.ModTime(), err)
	}
	// What the link leads to is made inside the root, or not at all.
	made, err = MakeTargets(open(t, dir), someTargets)
	if err == nil && !slices.Contains(made, "/proc") {
		t.Errorf("made %q", made)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("made outside of the root: %v (%v)", entries, err)
	}
	again, err2 := MakeTargets(open(t, dir), someTargets)
	if err == nil && (err2 != nil || len(again) > 0) {
		t.Errorf("made again: %q (%v)", again, err2)
	}
}

// TestMakeTargetsKeepsLinks: a dangling link at a file's place is covered.
func TestMakeTargetsKeepsLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run/stub", filepath.Join(dir, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	made, err := MakeTargets(open(t, dir), []Target{{Path: "/etc/resolv.conf", Cover: true}})
	if err != nil || len(made) > 0 {
		t.Errorf("made %q (%v)", made, err)
	}
}

// TestMakeTargetsRace flips a directory of the root with a link to the host
// while targets are made below it (CVE-2021-30465, CVE-2024-45310).
func TestMakeTargetsRace(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("race")
	}
	dir, outside := t.TempDir(), t.TempDir()
	name, spare := filepath.Join(dir, "c"), filepath.Join(dir, "spare")
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, spare); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, spare, unix.RENAME_EXCHANGE)
			}
		}
	}()
	root := open(t, dir)
	for range 2000 {
		MakeTargets(root, []Target{{Path: "/c/d/e", Dir: true}, {Path: "/c/f"}})
		os.RemoveAll(filepath.Join(dir, outside))
		os.RemoveAll(filepath.Join(name, "d"))
	}
	close(stop)
	<-done
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("made outside of the root: %v (%v)", entries, err)
	}
}
