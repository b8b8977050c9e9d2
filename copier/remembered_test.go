package copier

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRememberOwners: notes count on the roots that are told to have them, on
// what is the one id's; a link's is asked for by its path.
func TestRememberOwners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, OwnerXattr, []byte("7:8"), 0); err != nil {
		t.Skip("no attributes of users here: ", err)
	}
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at := int(r.dir.Fd())
	regular, link := &unix.Stat_t{Mode: unix.S_IFREG}, &unix.Stat_t{Mode: unix.S_IFLNK}
	if got := r.owner(at, "f", "f", regular); got != (Owner{}) {
		t.Errorf("a note counts without being asked for: %v", got)
	}
	r.RememberOwners(func(name string) (Owner, bool) { return Owner{9, 10}, name == "d/l" })
	for _, c := range []struct {
		name, real string
		st         *unix.Stat_t
		want       Owner
	}{
		{"f", "f", regular, Owner{7, 8}}, {"l", "/d/l", link, Owner{9, 10}}, {"l", "l", link, Owner{}}, {".", ".", &unix.Stat_t{Mode: unix.S_IFDIR}, Owner{}},
		{"f", "f", &unix.Stat_t{Mode: unix.S_IFREG, Uid: 3}, Owner{3, 0}}, {"gone", "gone", regular, Owner{}},
	} {
		if got := r.owner(at, c.name, c.real, c.st); got != c.want {
			t.Errorf("%s: %v, want %v", c.real, got, c.want)
		}
	}
}

// TestNote: what is noted is read again, and taken away with 0:0.
func TestNote(t *testing.T) {
	t.Parallel()
	fd, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := Note(fd, Owner{}); err != nil {
		t.Errorf("forgetting nothing: %v", err)
	}
	if err := Note(fd, Owner{5, 6}); err != nil {
		t.Fatal(err)
	}
	if got, ok := Noted(fd); got != (Owner{5, 6}) || !ok {
		t.Skipf("no attributes of users here: %v, %t", got, ok)
	}
	if err := Note(fd, Owner{}); err != nil {
		t.Error(err)
	}
	if got, ok := Noted(fd); ok {
		t.Errorf("still %v", got)
	}
}

// TestLinkNotes: a link's owner lands in the log under the key of the upper
// directory's inode.
func TestLinkNotes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	upper := filepath.Join(dir, "upper")
	if err := os.MkdirAll(filepath.Join(upper, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(upper, "d/l")); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRoot(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log, err := OpenOwnerLog(r.File())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := (&linkNotes{log, r}).note("/d/l", Owner{5, 6}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(upper, "d/l"), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	key, err := KeyOf(fd)
	if err != nil {
		t.Skipf("no handles in the temporary directory: %v", err)
	}
	if got, ok := log.Owner(key); !ok || got != (Owner{5, 6}) {
		t.Errorf("%v, %t", got, ok)
	}
	if err := (*linkNotes)(nil).note("x", Owner{}); err != nil {
		t.Error(err)
	}
}
