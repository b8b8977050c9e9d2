package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// hierarchy is a mounted tree of control groups.
type hierarchy struct {
	top         string   // where it is mounted
	own         string   // this process's group in it, below top
	controllers []string // of version 1; of version 2 the group's file says
	unified     bool     // version 2
}

// hierarchies are this process's. It stays where it is, unless systemd has been
// asked for a scope (delegated).
var hierarchies = sync.OnceValues(readHierarchies)

func readHierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parseHierarchies(string(mounts), string(self)), nil
}

// parseHierarchies reads proc_pid_mountinfo(5) and proc_pid_cgroup(5). The
// unified hierarchy comes last: a controller of version 1 is nowhere else.
func parseHierarchies(mountinfo, self string) []hierarchy {
	own := map[string]string{} // by controller or name; "" is version 2
	for line := range strings.Lines(self) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			own[c] = f[2]
		}
	}
	var old, unified []hierarchy
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+4 {
			continue
		}
		root, top, options := unescape(f[3]), unescape(f[4]), strings.Split(f[dash+3], ",")
		switch f[dash+1] {
		case "cgroup2":
			if path, ok := own[""]; ok && len(unified) == 0 {
				unified = append(unified, hierarchy{top: top, own: below(root, path), unified: true})
			}
		case "cgroup":
			h := hierarchy{top: top}
			for _, o := range options {
				if path, ok := own[o]; ok && o != "" {
					h.controllers = append(h.controllers, o)
					h.own = below(root, path)
				}
			}
			if len(h.controllers) > 0 {
				old = append(old, h)
			}
		}
	}
	return append(old, unified...)
}

// below is path as seen in a mount that shows the tree from root on. A group
// outside of it is not to be seen: the mount's root stands for it.
func below(root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "/"
	}
	return filepath.Join("/", rel)
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// with returns the hierarchy that has a controller; ok is false when none
// has. For "" any will do, the unified one first.
func with(list []hierarchy, controller string) (hierarchy, bool) {
	if controller == "" && len(list) > 0 {
		return list[len(list)-1], true
	}
	for _, h := range list {
		if h.unified || slices.Contains(h.controllers, controller) {
			return h, true
		}
	}
	return hierarchy{}, false
}
