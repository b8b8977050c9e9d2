package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// place makes the group's directory in h: below parent, or below this
// process's own group.
func (m *maker) place(h hierarchy, parent string, needs []need) (*part, error) {
	var wanted []string
	for _, n := range needs {
		if n.controller != "" {
			wanted = append(wanted, n.controller)
		}
	}
	if parent != "" {
		at, err := m.parent(h, slicePath(parent), wanted)
		if err != nil {
			return nil, err
		}
		return m.make(h, at, wanted)
	}
	var first error
	for at := h.own; ; at = filepath.Dir(at) {
		p, err := m.make(h, at, wanted)
		if err == nil {
			return p, nil
		}
		if first == nil || !errors.Is(err, fs.ErrPermission) {
			first = err
		}
		// In version 1 a group may have both processes and groups: what does
		// not go here goes nowhere.
		if !h.unified || at == "/" {
			return nil, first
		}
	}
}

// make makes the group below at, locked, with the controllers.
func (m *maker) make(h hierarchy, at string, wanted []string) (*part, error) {
	above := filepath.Join(h.top, at)
	if h.unified {
		if err := enable(above, wanted); err != nil {
			return nil, err
		}
	}
	sweep(above)
	dir := filepath.Join(above, m.name)
	for range 100 {
		if err := m.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if h.unified && invalid(dir) {
			return nil, errors.Join(errHasProcesses(above), os.Remove(dir))
		}
		lock, err := lockDir(dir, true)
		if err == nil {
			return &part{dir: dir, lock: lock, unified: h.unified, controllers: wanted}, nil
		}
		// Somebody's sweep was faster than our lock.
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: is removed whenever it is made", dir)
}

// errHasProcesses: a group whose controllers its children shall have holds
// processes. The kernel refuses that for controllers of memory and I/O; with
// the others the children become such as take no process (cgroups(7), thread
// mode), and so would children that are there already.
func errHasProcesses(dir string) error {
	return fmt.Errorf("the control group %s has processes of its own: %w", dir, unix.EBUSY)
}

// invalid reports a group that can hold no process.
func invalid(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.type"))
	return err == nil && strings.Contains(string(b), "invalid")
}

// hasProcesses reports a group, other than the root of all, that holds processes.
func hasProcesses(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && len(b) > 0
}

// errNoController: what is delegated lacks a controller.
var errNoController = errors.New("it is not delegated")

// enable gives the groups below dir the controllers.
func enable(dir string, wanted []string) error {
	if len(wanted) == 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	on := strings.Fields(string(b))
	var missing []string
	for _, c := range wanted {
		if !slices.Contains(on, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	b, err = os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range missing {
		if !slices.Contains(strings.Fields(string(b)), c[1:]) {
			return fmt.Errorf("the control group %s has no controller %s: %w", dir, c[1:], errNoController)
		}
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	if err := unix.Access(file, unix.W_OK); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if hasProcesses(dir) {
		return errHasProcesses(dir)
	}
	return write(file, strings.Join(missing, " "))
}

// parent makes the group that the user has named, and those above it, and
// returns its path.
func (m *maker) parent(h hierarchy, name string, wanted []string) (string, error) {
	parts := strings.Split(strings.Trim(name, "/"), "/")
	at := "/"
	for _, p := range parts {
		if p == "" {
			continue
		}
		if h.unified {
			if err := enable(filepath.Join(h.top, at), wanted); err != nil {
				return "", err
			}
		}
		at = filepath.Join(at, p)
		dir := filepath.Join(h.top, at)
		err := m.mkdir(dir)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if err == nil && !h.unified && slices.Contains(h.controllers, "cpuset") {
			if err := inheritSets(dir); err != nil {
				return "", err
			}
		}
	}
	return at, nil
}

// ParentPath is Parent as a path below the root of a hierarchy; "" is none.
func (l Limits) ParentPath() string {
	if l.Parent == "" {
		return ""
	}
	return slicePath(l.Parent)
}

// slicePath is where systemd keeps a slice: a-b.slice lies in a.slice
// (systemd.slice(5)). Other names are paths.
func slicePath(name string) string {
	base, ok := strings.CutSuffix(strings.TrimPrefix(name, "/"), ".slice")
	if !ok || strings.Contains(base, "/") {
		return filepath.Clean("/" + name)
	}
	path := ""
	for i := range base {
		if base[i] == '-' {
			path += "/" + base[:i] + ".slice"
		}
	}
	return path + "/" + base + ".slice"
}

// lockDir opens a group's directory and locks it. A directory that was
// removed meanwhile is fs.ErrNotExist.
func lockDir(dir string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	var opened, named unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &opened)
	}
	if err == nil {
		err = unix.Stat(dir, &named)
	}
	if err == nil && opened.Ino != named.Ino {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock of %s: %w", dir, err)
	}
	return f, nil
}

// sweep removes groups that processes which have died have left in dir.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		old := filepath.Join(dir, e.Name())
		lock, err := lockDir(old, false)
		if err != nil {
			continue // somebody's
		}
		// Should a process still be in it, it stays for the next time.
		_ = unix.Rmdir(old)
		lock.Close()
	}
}
