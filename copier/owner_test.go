package copier

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOwner(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		owner Owner
		ok    bool
	}{
		"0:0": {Owner{0, 0}, true}, "1000:100": {Owner{1000, 100}, true}, "4294967294:1": {Owner{4294967294, 1}, true},
		"": {}, "1": {}, "1:": {}, ":1": {}, "1:2:3": {}, "-1:0": {}, "4294967295:0": {}, "0:4294967295": {}, "4294967296:0": {}, "a:b": {}, " 1:1": {}, "+1:1": {},
	} {
		if got, ok := ParseOwner(in); got != want.owner || ok != want.ok {
			t.Errorf("%q is %v, %t; want %v, %t", in, got, ok, want.owner, want.ok)
		}
	}
}

// TestRemembered: what is remembered is taken away with the next owner, and
// is nothing that is copied or comes from an archive.
func TestRemembered(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	remember(fd, Owner{1, 2})
	b := make([]byte, 64)
	n, err := unix.Fgetxattr(fd, OwnerXattr, b)
	if err != nil {
		t.Skipf("no user attributes in the temporary directory: %v", err)
	}
	if got, ok := ParseOwner(string(b[:n])); !ok || got != (Owner{1, 2}) {
		t.Errorf("remembered %q", b[:n])
	}
	if list, err := listXattrs(fd); err != nil || len(list) > 0 {
		t.Errorf("%v, %v: would be copied", list, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if err := chown(fd, &st, Owner{int(st.Uid), int(st.Gid)}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Fgetxattr(fd, OwnerXattr, b); err != unix.ENODATA {
		t.Errorf("still remembered: %v", err)
	}
}
