package owners

import "testing"

// TestChange: the rules of setuid(2), setreuid(2) and setresuid(2).
func TestChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		was, want  ids
		privileged bool
		is         ids
		ok         bool
	}{
		{"set", ids{0, 0, 0}, ids{5}, true, ids{5, 5, 5}, true},
		{"set", ids{5, 5, 5}, ids{0}, false, ids{5, 5, 5}, false},
		{"set", ids{0, 5, 0}, ids{0}, false, ids{0, 0, 0}, true},
		{"set", ids{5, 0, 6}, ids{6}, false, ids{5, 6, 6}, true},
		{"setre", ids{0, 0, 0}, ids{5, 6}, true, ids{5, 6, 6}, true},
		{"setre", ids{0, 0, 0}, ids{keep, 6}, true, ids{0, 6, 6}, true},
		{"setre", ids{5, 6, 7}, ids{6, 5}, false, ids{6, 5, 5}, true},
		{"setre", ids{5, 6, 7}, ids{7, keep}, false, ids{5, 6, 7}, false},
		{"setre", ids{5, 6, 7}, ids{keep, 5}, false, ids{5, 5, 7}, true},
		{"setres", ids{0, 0, 0}, ids{1, 2, 3}, true, ids{1, 2, 3}, true},
		{"setres", ids{1, 2, 3}, ids{3, keep, 1}, false, ids{3, 2, 1}, true},
		{"setres", ids{1, 2, 3}, ids{keep, 0, keep}, false, ids{1, 2, 3}, false},
	} {
		got := c.was
		ok := got.change(&call{name: c.name}, c.want, c.privileged)
		if ok != c.ok || ok && got != c.is {
			t.Errorf("%s %v of %v, privileged %t: %v, %t", c.name, c.want, c.was, c.privileged, got, ok)
		}
	}
}

// TestTable: every call of the filter has a description, and its arguments
// are where they should be.
func TestTable(t *testing.T) {
	t.Parallel()
	list := table()
	asked := Asked(true)
	names := asked.Calls()
	if len(list) != len(names) || len(list) < 20 {
		t.Fatalf("%d calls, %d descriptions", len(names), len(list))
	}
	for key, n := range names {
		c := list[key]
		if c.family == 0 || c.family == famSetID && (c.ids < 1 || c.name == "") {
			t.Errorf("%s: %+v", n.Name, c)
		}
		switch n.Name {
		case "fchownat":
			if c.path != 1 || c.dir != 0 || c.flags != 4 || c.uid != 2 || c.gid != 3 || c.short {
				t.Errorf("%s: %+v", n.Name, c)
			}
		case "chown":
			if c.short != n.Narrow || c.nofollow {
				t.Errorf("%s: %+v", n.Name, c)
			}
		case "getresgid":
			if !c.group || c.family != famGetID || c.name != "getres" {
				t.Errorf("%s: %+v", n.Name, c)
			}
		case "setfsuid":
			if c.group || c.name != "setfs" || c.ids != 1 {
				t.Errorf("%s: %+v", n.Name, c)
			}
		}
	}
	c := call{short: true}
	if c.id(0xffff) != keep || c.id(0x10005) != 5 || c.narrowed(70000) != 0xfffe {
		t.Error("ids of 16 bits")
	}
}

func TestOwnDescriptor(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int32{"/proc/self/fd/3": 3, "/dev/fd/0": 0, "/proc/thread-self/fd/12": 12} {
		if fd, ok := ownDescriptor(path); !ok || fd != want {
			t.Errorf("%s: %d, %t", path, fd, ok)
		}
	}
	for _, path := range []string{"/proc/self/fd/", "/proc/self/fd/-1", "/proc/self/fd/3/x", "/proc/1/fd/3", "3", "/proc/self/fd/99999999999"} {
		if fd, ok := ownDescriptor(path); ok {
			t.Errorf("%s: %d", path, fd)
		}
	}
}
