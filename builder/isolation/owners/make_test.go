package owners

import (
	"testing"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// TestSplit: the directory and the name of a path that a file can be made at.
func TestSplit(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][2]string{
		"f": {".", "f"}, "./f": {".", "f"}, "a/f": {"a", "f"}, "/f": {"/", "f"}, "/a/b/f": {"/a/b", "f"}, "a/b//": {"a", "b"},
		"../f": {"..", "f"}, "a//f": {"a/", "f"}, "/a/": {"/", "a"},
	} {
		if dir, name, ok := split(path); !ok || dir != want[0] || name != want[1] {
			t.Errorf("%q: %q, %q, %t", path, dir, name, ok)
		}
	}
	for _, path := range []string{"", "/", "//", ".", "..", "a/.", "a/..", "a/../"} {
		if dir, name, ok := split(path); ok {
			t.Errorf("%q: %q, %q", path, dir, name)
		}
	}
}

// TestMay: the rules of a mode, by the class that a process is in.
func TestMay(t *testing.T) {
	t.Parallel()
	l := &Listener{loose: map[looseKey]copier.Owner{{0, 1}: {UID: 5, GID: 6}}}
	object := func(mode uint16) *object { return &object{stx: unix.Statx_t{Mode: unix.S_IFIFO | mode, Ino: 1}} }
	user, member, other := newCredentials(5, 1, nil), newCredentials(7, 1, []uint32{2, 6}), newCredentials(7, 1, nil)
	root := newCredentials(0, 0, nil)
	for _, c := range []struct {
		told *credentials
		mode uint16
		want wants
		may  bool
	}{
		{&user, 0o200, wantW, true}, {&user, 0o077, wantW, false}, {&user, 0o700, wantW | wantX, true}, {&user, 0o600, wantW | wantX, false},
		{&member, 0o020, wantW, true}, {&member, 0o707, wantW, false}, {&other, 0o002, wantW, true}, {&other, 0o770, wantW, false},
		{&root, 0, wantW | wantX, true},
	} {
		if got := l.may(c.told, object(c.mode), c.want); got != c.may {
			t.Errorf("%v, mode %o, %o: %t", c.told.user, c.mode, c.want, got)
		}
	}
}

// TestMayChown: files may be given away by who has CAP_CHOWN only, but to the
// groups of their owner.
func TestMayChown(t *testing.T) {
	t.Parallel()
	told := newCredentials(5, 6, []uint32{8})
	was := copier.Owner{UID: 5, GID: 6}
	for _, c := range []struct {
		was      copier.Owner
		uid, gid uint32
		may      bool
	}{
		{was, 5, 6, true}, {was, keep, 8, true}, {was, 5, keep, true}, {was, 4, keep, false}, {was, keep, 9, false},
		{copier.Owner{UID: 4, GID: 6}, keep, 8, false}, {copier.Owner{UID: 5, GID: 9}, keep, 9, true},
	} {
		if got := told.mayChown(c.was, c.uid, c.gid); got != c.may {
			t.Errorf("%v to %d:%d: %t", c.was, c.uid, c.gid, got)
		}
	}
}

// TestGroupList: what is kept of groups is what was given.
func TestGroupList(t *testing.T) {
	t.Parallel()
	g := newGroupList([]uint32{7, 4294967294, 0})
	if g.len() != 3 || g.at(1) != 4294967294 || !g.has(7) || !g.has(0) || g.has(8) {
		t.Errorf("%x", string(g))
	}
	if newGroupList(nil).len() != 0 {
		t.Error("no groups are some")
	}
}

// TestAsked: what only steps of other users are asked about.
func TestAsked(t *testing.T) {
	t.Parallel()
	root, user := Asked(false), Asked(true)
	if root.When["openat"].Mask&writes != 0 || root.When["openat"].Mask&unix.O_CREAT == 0 || user.When["openat"].Mask&unix.O_WRONLY == 0 {
		t.Errorf("%+v %+v", root.When["openat"], user.When["openat"])
	}
	if len(user.Native)-len(root.Native) != len(userNames) {
		t.Errorf("%d and %d", len(root.Native), len(user.Native))
	}
}
