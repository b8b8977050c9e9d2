package copier

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/tests/fstree"
)

const accounts = `
/etc/passwd file "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\ndaemon:x:1:1::/usr/sbin:\nbin:x:2:20::/bin:\n1000:x:0:0::/evil:\nuser:x:1000:1001::/home/user:\n3proxy:x:7:8::/:\nnohome:x:9:9\nbig:x:4294967295:0::/:\nneg:x:-1:0::/:\n+nis::0:0::/:\n"
/etc/group file "root:x:0:\ndaemon:x:1:\nextra:x:50:user,daemon,user\nmore:x:51:other,user\ndup:x:50:user\n100:x:0:user2\nbroken:x\nbig:x:99999999999:user\n"
`

func TestUser(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		r, _ := makeRoot(t, accounts, walk)
		root := User{UID: 0, GID: 0, Groups: []uint32{0}, Home: "/root", Name: "root"}
		user := User{UID: 1000, GID: 1001, Groups: []uint32{1001, 50, 51}, Home: "/home/user", Name: "user"}
		for spec, want := range map[string]User{
			"": root, "root": root, "0": root,
			"user": user, "1000": user,
			"user:daemon": {UID: 1000, GID: 1, Groups: []uint32{1}, Home: "/home/user", Name: "user"},
			"user:7":      {UID: 1000, GID: 7, Groups: []uint32{7}, Home: "/home/user", Name: "user"},
			"daemon":      {UID: 1, GID: 1, Groups: []uint32{1, 50}, Home: "/usr/sbin", Name: "daemon"},
			"bin":         {UID: 2, GID: 20, Groups: []uint32{20}, Home: "/bin", Name: "bin"},
			"1234":        {UID: 1234, GID: 0, Groups: []uint32{0}, Home: "/"},
			"1234:1235":   {UID: 1234, GID: 1235, Groups: []uint32{1235}, Home: "/"},
			"1234:100":    {UID: 1234, GID: 100, Groups: []uint32{100}, Home: "/"},
			"1234:extra":  {UID: 1234, GID: 50, Groups: []uint32{50}, Home: "/"},
			"2147483647":  {UID: 2147483647, GID: 0, Groups: []uint32{0}, Home: "/"},
			"3proxy":      {UID: 7, GID: 8, Groups: []uint32{8}, Home: "/", Name: "3proxy"},
			"nohome":      {UID: 9, GID: 9, Groups: []uint32{9}, Home: "/", Name: "nohome"},
			"user:":       user,
			"00":          root,
		} {
			got, err := r.User(spec)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("User(%q) = %+v, %v; want %+v", spec, got, err, want)
			}
		}
	})
}

func TestUserErrors(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, accounts, false)
	for spec, want := range map[string]error{
		"4294967296": define.ErrInvalid, "65536:2147483648": define.ErrInvalid, "2147483648": define.ErrInvalid,
		"-1": define.ErrInvalid, "+1": define.ErrInvalid, " 0": define.ErrInvalid, "0 ": define.ErrInvalid, "0:-1": define.ErrInvalid,
		"99999999999999999999999": define.ErrInvalid, "a/b": define.ErrInvalid, "a\x00": define.ErrInvalid,
		"0x0": define.ErrNotFound, "1e3": define.ErrNotFound, "٣": define.ErrNotFound, "nobody": define.ErrNotFound,
		"user:nogroup": define.ErrNotFound, "big": define.ErrNotFound, "neg": define.ErrNotFound, "broken": define.ErrNotFound,
		"+nis": define.ErrInvalid, "0:big": define.ErrNotFound, "0:0:0": define.ErrNotFound,
	} {
		if u, err := r.User(spec); !errors.Is(err, want) {
			t.Errorf("User(%q) = %+v, %v; want %v", spec, u, err, want)
		}
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, accounts, false)
	for spec, want := range map[string]Owner{
		"user": {1000, 1001}, "1000": {1000, 1000}, "55:extra": {55, 50}, "bin": {2, 20}, "1": {1, 1}, "10:11": {10, 11},
		"user:root": {1000, 0}, ":daemon": {0, 1}, "user:": {1000, 1001},
	} {
		if got, err := r.Owner(spec); err != nil || got != want {
			t.Errorf("Owner(%q) = %v, %v; want %v", spec, got, err, want)
		}
	}
	for _, spec := range []string{"", "nobody", "user:nogroup", "4294967296", "-1:0"} {
		if got, err := r.Owner(spec); err == nil {
			t.Errorf("Owner(%q) = %v, want an error", spec, got)
		}
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, accounts, false)
	for name, want := range map[string]uint32{"extra": 50, "7": 7, "root": 0} {
		if got, err := r.Group(name); err != nil || got != want {
			t.Errorf("Group(%q) = %d, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "nosuch", "-1", "4294967296"} {
		if got, err := r.Group(name); err == nil {
			t.Errorf("Group(%q) = %d, want an error", name, got)
		}
	}
}

// TestAccountNamedOnce: an error names what was asked for once.
func TestAccountNamedOnce(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, accounts, false)
	const remedy = " of the image: make it in an earlier step, or use a number: not found"
	_, user := r.User("nosuch")
	_, both := r.User("user:nosuch")
	_, owner := r.Owner("nosuch:root")
	_, group := r.Group("nosuch")
	for want, err := range map[string]error{
		`user "nosuch": no account of that name in /etc/passwd` + remedy: user,
		`user "user:nosuch": no group nosuch in /etc/group` + remedy:     both,
		`user "nosuch:root": no account nosuch in /etc/passwd` + remedy:  owner,
		`group "nosuch": no group of that name in /etc/group` + remedy:   group,
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v\n\twant %s", err, want)
		}
	}
}

// TestUserHostileFiles: account files that are something else neither hang,
// nor fill the memory, nor show accounts of the host.
func TestUserHostileFiles(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		for name, spec := range map[string]string{
			"fifo": "/etc/passwd fifo", "directory": "/etc/passwd dir", "loop": "/etc/passwd link -> passwd", "socket": "/etc/passwd socket",
			"huge": fmt.Sprintf("/etc/passwd file %d bytes sparse", int64(8)<<30), "device": "/etc/passwd char 0666 1,5",
			"fd": "/etc/passwd link -> /proc/self/fd/0", "host": "/etc/passwd link -> /../../../../etc/passwd",
		} {
			t.Run(name, func(t *testing.T) {
				r, _ := makeRoot(t, spec, walk)
				err := within(t, name, func() error { _, err := r.User("root"); return err })
				if err == nil {
					t.Error("no error")
				}
			})
		}
		r, _ := makeRoot(t, "", walk)
		if u, err := r.User("1000"); err != nil || u.UID != 1000 {
			t.Errorf("no files: %+v, %v", u, err)
		}
	})
}

func TestUserManyGroups(t *testing.T) {
	t.Parallel()
	r, dir := makeRoot(t, "/etc/passwd file \"u:x:1:1::/:\\n\"", false)
	var b strings.Builder
	for i := range 400_000 {
		fmt.Fprintf(&b, "g%d:x:%d:u\n", i, i)
	}
	fstree.Make(t, dir, fmt.Sprintf("/etc/group file %q", b.String()))
	u, err := r.User("u")
	if err != nil || len(u.Groups) != 65536 {
		t.Errorf("%d groups, %v", len(u.Groups), err)
	}
	b.WriteString(strings.Repeat("x", 10<<20))
	fstree.Make(t, dir, fmt.Sprintf("/etc/group file %q", b.String()))
	if _, err := r.User("u"); err == nil || !strings.Contains(err.Error(), "/etc/group") {
		t.Errorf("a file of more than 10 MiB: %v", err)
	}
}

func FuzzUser(f *testing.F) {
	for _, s := range []string{"", "0", "user", "1000", "user:extra", "-1", "4294967296", ":", "a:b:c", "\x00", "٣"} {
		f.Add(s, "user:x:1000:1001::/home/user:\n1000:x:0:0::/:", "extra:x:5:user\n")
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		r, _ := makeRoot(t, fmt.Sprintf("/etc/passwd file %q\n/etc/group file %q", passwd, group), false)
		u, err := r.User(spec)
		if err != nil {
			return
		}
		if u.UID > maxID || u.GID > maxID || len(u.Groups) == 0 || u.Groups[0] != u.GID || u.Home == "" {
			t.Errorf("User(%q) = %+v", spec, u)
		}
		name, _, _ := strings.Cut(spec, ":")
		if n, isID, err := parseID(name); err == nil && isID && n != u.UID {
			t.Errorf("User(%q): the number became %d", spec, u.UID)
		}
		r.Owner(spec)
	})
}
