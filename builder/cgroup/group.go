package cgroup

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// Group is a control group: a directory in each hierarchy that it needs. A nil
// Group is one without limits; its methods do nothing.
type Group struct {
	limits Limits
	parts  []part
}

// part is the group in one hierarchy.
type part struct {
	dir         string
	lock        *os.File // the directory, locked
	unified     bool
	controllers []string
}

// prefix begins the names of our groups.
const prefix = "strata-step-"

// New makes a group with limits; nil when l asks for none. A limit that
// cannot be applied here is an error that wraps define.ErrUnsupported and says
// what would help.
//
// Where this process may make no group, and control groups are of version 2
// alone, systemd is asked to give it one, as l.Manager allows.
func New(l Limits) (*Group, error) {
	if l.IsZero() {
		return nil, nil
	}
	if err := l.Check(); err != nil {
		return nil, err
	}
	var err error
	if l.Manager != ManagerSystemd {
		var list []hierarchy
		if list, err = hierarchies(); err != nil {
			return nil, fmt.Errorf("control groups of this process: %w", err)
		}
		var g *Group
		g, err = newMaker().group(list, l)
		if err == nil || l.Manager != ManagerAny || !mayDelegate(list, l.Parent) || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EBUSY) {
			return g, err
		}
	}
	list, cause := delegated(l.Parent)
	switch {
	case cause == nil:
		l.Parent = ""
		return newMaker().group(list, l)
	case err == nil:
		return nil, fmt.Errorf("a control group of systemd's: %w; use --cgroup-manager cgroupfs, or leave the limits away: %w", cause, define.ErrUnsupported)
	}
	return nil, fmt.Errorf("%w (and systemd gives us no group: %w)", err, cause)
}

// mayDelegate reports that systemd could help: it delegates version 2 only,
// and makes groups in slices only.
func mayDelegate(list []hierarchy, parent string) bool {
	return len(list) == 1 && list[0].unified && (parent == "" || strings.HasSuffix(parent, ".slice"))
}

// maker makes directories; tests give it another mkdir, since what the kernel
// puts into new ones is not there otherwise.
type maker struct {
	name  string
	mkdir func(path string) error
}

func newMaker() *maker {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return &maker{name: prefix + hex.EncodeToString(b[:]), mkdir: func(path string) error { return os.Mkdir(path, 0o755) }}
}

func (m *maker) group(list []hierarchy, l Limits) (_ *Group, err error) {
	g := &Group{limits: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Remove())
		}
	}()
	needs := l.needs()
	if len(needs) == 0 {
		// A parent alone: where this process's group is, too.
		needs = []need{{what: "parent control group"}}
	}
	byTop := map[string][]need{}
	var order []hierarchy
	for _, n := range needs {
		h, ok := with(list, n.controller)
		if !ok {
			return nil, n.refused(errors.New("no hierarchy of control groups with the controller " + n.controller + " is mounted at /sys/fs/cgroup"))
		}
		if byTop[h.top] == nil {
			order = append(order, h)
		}
		byTop[h.top] = append(byTop[h.top], n)
	}
	for _, h := range order {
		if err := m.part(g, h, byTop[h.top]); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// part makes the group in h and writes what needs ask for.
func (m *maker) part(g *Group, h hierarchy, needs []need) error {
	p, err := m.place(h, g.limits.Parent, needs)
	if err != nil {
		return needs[0].refused(err)
	}
	g.parts = append(g.parts, *p)
	for _, n := range needs {
		settings := n.old
		if h.unified {
			settings = n.new
		}
		if n.controller == "cpuset" && !h.unified {
			if err := inheritSets(p.dir); err != nil {
				return n.refused(err)
			}
		}
		for _, s := range settings {
			err := write(filepath.Join(p.dir, s.file), s.value)
			if err != nil && (!s.optional || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP)) {
				return n.refused(err)
			}
		}
	}
	return nil
}

// refused says which limit cannot be applied, and what helps.
func (n need) refused(err error) error {
	remedy := "run as root, or leave the limit away"
	switch {
	case errors.Is(err, errNoController):
		remedy = "as root, delegate it: Delegate=cpu cpuset io memory pids in systemctl edit user@.service"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		remedy = "the value does not suit this host"
	case errors.Is(err, unix.EBUSY):
		remedy = "run strata in a control group of its own, as systemd-run --scope -p Delegate=yes (of a user: --user --scope) does"
	case os.Geteuid() != 0 || inUserNamespace():
		remedy = "as a user, run strata with systemd-run --user --scope -p Delegate=yes, or leave the limit away"
	}
	return fmt.Errorf("%s cannot be applied: %w; %s: %w", n.what, err, remedy, define.ErrUnsupported)
}

func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// write writes to a file that is there; its name is in the error, without
// the reason being hidden.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// inheritSets copies the sets of the group above, without which no process
// can be put into a version 1 cpuset.
func inheritSets(dir string) error {
	for _, file := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, file), strings.TrimSpace(string(b))); err != nil {
			return err
		}
	}
	return nil
}

// Add puts a process, all of its threads, into the group.
func (g *Group) Add(pid int) error { return Add(g.Dirs(), pid) }

// Dirs are the group's directories, for Add in another process.
func (g *Group) Dirs() []string {
	if g == nil {
		return nil
	}
	var dirs []string
	for _, p := range g.parts {
		dirs = append(dirs, p.dir)
	}
	return dirs
}

// Add puts a process into the group of dirs.
func Add(dirs []string, pid int) error {
	for _, dir := range dirs {
		if err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return need{what: "control group of the step"}.refused(err)
		}
	}
	return nil
}

// Usage is what a group has used.
type Usage struct {
	// OOMKills is how many of its processes the kernel has killed for memory.
	OOMKills int
	// Peak is the most memory that was used at once, 0 where it is not known.
	Peak int64
}

// Usage reads what the group has used, until it is removed.
func (g *Group) Usage() Usage {
	var u Usage
	if g == nil {
		return u
	}
	for _, p := range g.parts {
		if !slices.Contains(p.controllers, "memory") {
			continue
		}
		events, peak := "memory.oom_control", "memory.max_usage_in_bytes"
		if p.unified {
			events, peak = "memory.events", "memory.peak" // Linux 5.19
		}
		b, err := os.ReadFile(filepath.Join(p.dir, events))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
				u.OOMKills, _ = strconv.Atoi(strings.TrimSpace(count))
			}
		}
		if b, err := os.ReadFile(filepath.Join(p.dir, peak)); err == nil {
			u.Peak, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		}
	}
	return u
}

// OutOfMemory says that processes of the group were killed for its memory
// limit, or "".
func (g *Group) OutOfMemory() string {
	if g == nil {
		return ""
	}
	u := g.Usage()
	if u.OOMKills == 0 {
		return ""
	}
	return g.limits.OutOfMemory(u.Peak)
}

// OutOfMemory is the sentence about a step that was killed for its memory
// limit; a peak of 0 is not known. It is "" when there is no such limit.
func (l Limits) OutOfMemory(peak int64) string {
	if l.Memory == 0 {
		return ""
	}
	s := "out of memory: limit " + size(l.Memory)
	if peak > 0 {
		s += ", peak " + size(peak)
	}
	return s
}

// HostOOMKills is the kernel's count of processes that it has killed for
// memory, for whatever limit, since it was started; "" where it is not known.
func HostOOMKills() string {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), "\noom_kill ")
	count, _, _ := strings.Cut(rest, "\n")
	return count
}

// size writes bytes for people.
func size(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size {
			text := strconv.FormatFloat(float64(n)/float64(unit.size), 'f', 1, 64)
			return strings.TrimSuffix(text, ".0") + " " + unit.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// Remove removes the group once its processes have ended. Where some have
// not, it kills them: nothing of a step is to go on.
func (g *Group) Remove() error {
	if g == nil {
		return nil
	}
	var errs []error
	for i := len(g.parts) - 1; i >= 0; i-- {
		errs = append(errs, g.parts[i].remove())
	}
	g.parts = nil
	return errors.Join(errs...)
}

func (p part) remove() error {
	defer p.lock.Close()
	err := unix.Rmdir(p.dir)
	for pause := time.Millisecond; errors.Is(err, unix.EBUSY) && pause < time.Second; pause *= 2 {
		p.kill()
		time.Sleep(pause)
		err = unix.Rmdir(p.dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control group %s is left: %w", p.dir, err)
	}
	return nil
}

// kill ends what is in the group.
func (p part) kill() {
	if p.unified && write(filepath.Join(p.dir, "cgroup.kill"), "1") == nil { // Linux 5.14
		return
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL) // it may just have ended
		}
	}
}
