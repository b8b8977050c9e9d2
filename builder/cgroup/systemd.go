package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// Managers of control groups: who makes the group that steps' groups are in.
const (
	// ManagerAny is this process where it may, else systemd.
	ManagerAny = ""
	// ManagerFiles is this process alone.
	ManagerFiles = "cgroupfs"
	// ManagerSystemd asks systemd for a scope of ours in any case.
	ManagerSystemd = "systemd"
)

const (
	systemdManager = "org.freedesktop.systemd1.Manager"
	// systemdTime is enough for a systemd that is busy.
	systemdTime = 10 * time.Second
	// selfGroup is the group in our scope that this process is in: a group
	// whose controllers its children have may hold no process.
	selfGroup = "strata-self"
)

// scope is a transient unit of systemd's for this process (systemd.scope(5)),
// whose control group is delegated to us: the groups of steps are made in it.
// systemd removes it when the last process in it has ended.
type scope struct {
	parent string
	list   []hierarchy
	err    error
}

var (
	ours   *scope
	oursMu sync.Mutex
)

// delegated returns the hierarchies with this process in a scope of its own,
// in a slice, "" being the usual one. It asks systemd once a process.
func delegated(slice string) ([]hierarchy, error) {
	oursMu.Lock()
	defer oursMu.Unlock()
	if ours == nil {
		ours = &scope{parent: slice}
		ours.list, ours.err = newScope(slice)
	}
	if ours.err == nil && ours.parent != slice {
		return nil, fmt.Errorf("this process is in %q already and cannot be in %q too: %w", ours.parent, slice, define.ErrUnsupported)
	}
	return ours.list, ours.err
}

func newScope(slice string) ([]hierarchy, error) {
	if slice != "" && !strings.HasSuffix(slice, ".slice") {
		return nil, fmt.Errorf("parent control group %q: systemd makes groups in slices only, such as build.slice: %w", slice, define.ErrUnsupported)
	}
	list, err := readHierarchies()
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || !list[0].unified {
		return nil, fmt.Errorf("systemd delegates control groups of version 2 only, which this host does not have alone: %w", define.ErrUnsupported)
	}
	b, err := openBus(busAddress(os.Getenv, os.Geteuid()), time.Now().Add(systemdTime))
	if err != nil {
		return nil, err
	}
	defer b.conn.Close()
	unit := newMaker().name + ".scope"
	if err := b.startScope(unit, strings.TrimPrefix(slice, "/")); err != nil {
		return nil, err
	}
	if list, err = readHierarchies(); err != nil {
		return nil, err
	}
	own := list[0].own
	if path.Base(own) != unit {
		return nil, fmt.Errorf("systemd has made %s, and this process is still in %s", unit, own)
	}
	return list, inner(filepath.Join(list[0].top, own))
}

// inner moves this process, and what it has started meanwhile, into a group
// below dir.
func inner(dir string) error {
	self := filepath.Join(dir, selfGroup)
	if err := os.Mkdir(self, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := write(filepath.Join(self, "cgroup.procs"), "0"); err != nil {
		return err
	}
	for range 100 {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || len(b) == 0 {
			return err
		}
		for pid := range strings.FieldsSeq(string(b)) {
			// It may just have ended.
			if err := write(filepath.Join(self, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return errHasProcesses(dir)
}

// busAddress is where systemd's manager listens: the user's, or as root the
// system's.
func busAddress(getenv func(string) string, uid int) string {
	if uid == 0 {
		uid = outerID("/proc/self/uid_map")
	}
	if uid == 0 {
		if a := getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
			return a
		}
		return "unix:path=/run/dbus/system_bus_socket"
	}
	if a := getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" {
		return a
	}
	dir := getenv("XDG_RUNTIME_DIR")
	if usual := fmt.Sprintf("/run/user/%d", uid); dir == "" || !exists(filepath.Join(dir, "bus")) && exists(usual+"/bus") {
		dir = usual
	}
	return "unix:path=" + escapeBus(filepath.Join(dir, "bus"))
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// escapeBus escapes a value of an address.
func escapeBus(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_/.\\*", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// outerID is whose user this process's root is outside of its user namespace.
func outerID(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	var inside, outside, length int
	for line := range strings.Lines(string(b)) {
		if n, _ := fmt.Sscan(line, &inside, &outside, &length); n == 3 && inside == 0 {
			return outside
		}
	}
	return 0
}

// startScope has systemd put this process into a new scope and waits until it
// has.
func (b *bus) startScope(unit, slice string) error {
	if slice != "" && strings.ContainsAny(slice, "/\x00\n") {
		return fmt.Errorf("slice %q: want a name such as build.slice: %w", slice, define.ErrInvalid)
	}
	match := &encoder{}
	match.str("type='signal',interface='" + systemdManager + "',member='JobRemoved'")
	if _, err := b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", match.Bytes()); err != nil {
		return err
	}
	// StartTransientUnit(s name, s mode, a(sv) properties, a(sa(sv)) others)
	e := &encoder{}
	e.str(unit)
	e.str("fail")
	property := func(name, kind string, value func()) {
		e.align(8)
		e.str(name)
		e.signature(kind)
		value()
	}
	e.array(8, func() {
		property("Description", "s", func() { e.str("strata: steps of a build") })
		// 0 is whoever calls: our own numbers of processes may be others.
		property("PIDs", "au", func() { e.array(4, func() { e.u32(0) }) })
		property("Delegate", "b", func() { e.u32(1) })
		property("CollectMode", "s", func() { e.str("inactive-or-failed") })
		if slice != "" {
			property("Slice", "s", func() { e.str(slice) })
		}
	})
	e.array(8, func() {})
	m, err := b.call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", systemdManager, "StartTransientUnit", "ssa(sv)a(sa(sv))", e.Bytes())
	if err != nil {
		return err
	}
	job, ok := m.body().str()
	if !ok {
		return errors.New("StartTransientUnit: the answer is cut off")
	}
	result, err := b.wait(job)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", unit, err)
	}
	if result != "done" {
		return fmt.Errorf("%s was not started: %s", unit, result)
	}
	return nil
}

// CheckManager reports an unknown manager; the error wraps define.ErrInvalid.
func CheckManager(name string) error {
	if slices.Contains([]string{ManagerAny, ManagerFiles, ManagerSystemd}, name) {
		return nil
	}
	return fmt.Errorf("manager of control groups %q: want %s or %s: %w", name, ManagerFiles, ManagerSystemd, define.ErrInvalid)
}

// AskSystemd reports whether systemd's bus answers this process, and so would
// most likely make a scope for it; nothing is made.
func AskSystemd() error {
	list, err := readHierarchies()
	if err != nil {
		return err
	}
	if len(list) != 1 || !list[0].unified {
		return fmt.Errorf("control groups are not of version 2 alone: %w", define.ErrUnsupported)
	}
	b, err := openBus(busAddress(os.Getenv, os.Geteuid()), time.Now().Add(time.Second))
	if err != nil {
		return err
	}
	defer b.conn.Close()
	e := &encoder{}
	e.str("org.freedesktop.systemd1")
	m, err := b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s", e.Bytes())
	if err != nil {
		return err
	}
	if owned, _ := m.body().u32(); owned != 1 {
		return fmt.Errorf("no systemd on its bus: %w", define.ErrUnsupported)
	}
	return nil
}
