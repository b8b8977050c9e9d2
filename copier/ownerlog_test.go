package copier

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnerLog: what is noted of a link is there again for a second reader, by
// all names of the inode and by no other inode's; a line that was cut off
// spoils none before or after it.
func TestOwnerLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	upper := filepath.Join(dir, "upper")
	if err := os.Mkdir(upper, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	open := func() *OwnerLog {
		t.Helper()
		l, err := OpenOwnerLog(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	key := func(name string) FileKey {
		t.Helper()
		fd, err := unix.Open(filepath.Join(upper, name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		k, err := KeyOf(fd)
		if err != nil {
			t.Skipf("no handles in the temporary directory: %v", err)
		}
		return k
	}
	link := func(name string) {
		t.Helper()
		if err := os.Symlink("x", filepath.Join(upper, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("a")
	l := open()
	if _, ok := l.Owner(key("a")); ok || !l.Empty() {
		t.Error("a new log remembers something")
	}
	if _, err := os.Lstat(filepath.Join(dir, OwnerLogName)); err == nil {
		t.Error("the file was made before it was needed")
	}
	note := func(l *OwnerLog, k FileKey, o Owner) {
		t.Helper()
		if err := l.Note(k, o); err != nil {
			t.Fatal(err)
		}
	}
	note(l, key("a"), Owner{1, 2})
	note(l, key("a"), Owner{3, 4})
	for _, change := range []error{
		os.Link(filepath.Join(upper, "a"), filepath.Join(upper, "hard")),
		os.Rename(filepath.Join(upper, "a"), filepath.Join(upper, "b")),
	} {
		if change != nil {
			t.Fatal(change)
		}
	}
	for _, name := range []string{"b", "hard"} {
		if o, ok := open().Owner(key(name)); !ok || o != (Owner{3, 4}) {
			t.Errorf("%s: %v, %t", name, o, ok)
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, OwnerLogName), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.WriteString("1.2 5:"); err != nil {
		t.Fatal(err)
	}
	log.Close()
	link("c")
	note(open(), key("c"), Owner{6, 7})
	for name, want := range map[string]Owner{"b": {3, 4}, "c": {6, 7}} {
		if o, ok := open().Owner(key(name)); !ok || o != want {
			t.Errorf("after a torn line %s: %v, %t", name, o, ok)
		}
	}
	// A number that is used anew is another file's.
	was := key("c")
	for range 100 {
		if err := os.Remove(filepath.Join(upper, "c")); err != nil {
			t.Fatal(err)
		}
		link("c")
		if key("c") == was {
			t.Fatal("another inode has the same key")
		}
	}
	if _, ok := open().Owner(key("c")); ok {
		t.Error("another inode has the owner of the one before")
	}
}
