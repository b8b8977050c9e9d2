package owners

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ids are a process's real, effective and saved id, as it believes them to
// be. The kernel's are 0 all along.
type ids [3]uint32

const (
	real = iota
	effective
	saved
)

// credentials are what a process that has changed its ids is told.
type credentials struct {
	user, group ids
	start       uint64 // when the process was started: numbers are used again
}

// maxProcesses bounds what is kept of processes that may have ended.
const maxProcesses = 4096

// has reports whether id is one that an unprivileged process may change to.
func (i *ids) has(id uint32) bool { return id == keep || slices.Contains(i[:], id) }

// setIDs answers calls that change ids by the kernel's rules, without effect
// but on what the process is told afterwards.
func (l *Listener) setIDs(n *notification, c *call) response {
	var want ids
	foreign := false
	for i := range c.ids {
		want[i] = c.id(n.args[i])
		foreign = foreign || want[i] != 0 && want[i] != keep
	}
	if !foreign && len(l.processes) == 0 {
		return pass
	}
	p := l.process(n.pid)
	if p == nil || !l.valid(n.id) {
		return pass
	}
	if p.user[effective] == 0 && foreign && !l.capable(n.pid, c.capability()) {
		return pass
	}
	privileged := p.user[effective] == 0
	of := &p.user
	if c.group {
		of = &p.group
	}
	before := of[effective]
	if !of.change(c, want, privileged) {
		if c.name == "setfs" {
			return response{val: int64(before)}
		}
		return failed(unix.EPERM)
	}
	if c.name == "setfs" { // it returns what was, and only file systems look at it
		return response{val: int64(before)}
	}
	return response{}
}

func (c *call) capability() int {
	if c.group {
		return unix.CAP_SETGID
	}
	return unix.CAP_SETUID
}

// change applies setuid(2) and its kin; false: not permitted.
func (i *ids) change(c *call, want ids, privileged bool) bool {
	was := *i
	switch c.name {
	case "set":
		switch {
		case privileged:
			*i = ids{want[0], want[0], want[0]}
		case want[0] == was[real] || want[0] == was[saved]:
			i[effective] = want[0]
		default:
			return false
		}
	case "setre":
		r, e := want[0], want[1]
		if !privileged && (r != keep && r != was[real] && r != was[effective] || !was.has(e)) {
			return false
		}
		if r != keep {
			i[real] = r
		}
		if e != keep {
			i[effective] = e
		}
		if r != keep || e != keep && e != was[real] {
			i[saved] = i[effective]
		}
	case "setres":
		for k, id := range want {
			if !privileged && !was.has(id) {
				return false
			}
			if id != keep {
				i[k] = id
			}
		}
	default: // "setfs"
		return privileged || was.has(want[0])
	}
	return true
}

// setGroups answers setgroups(2), which the kernel denies.
func (l *Listener) setGroups(n *notification) response {
	if len(l.processes) > 0 {
		if p := l.process(n.pid); p != nil && p.user[effective] != 0 {
			return failed(unix.EPERM)
		}
	}
	if !l.capable(n.pid, unix.CAP_SETGID) {
		return failed(unix.EPERM)
	}
	return response{}
}

// getIDs answers processes that have changed theirs.
func (l *Listener) getIDs(n *notification, c *call) response {
	if len(l.processes) == 0 {
		return pass
	}
	p := l.process(n.pid)
	if p == nil {
		return pass
	}
	of := p.user
	if c.group {
		of = p.group
	}
	if of == (ids{}) {
		return pass
	}
	switch c.name {
	case "get":
		return response{val: int64(c.narrowed(of[real]))}
	case "gete":
		return response{val: int64(c.narrowed(of[effective]))}
	}
	for k, id := range of {
		b := binary.NativeEndian.AppendUint32(nil, id)
		if c.short {
			b = binary.NativeEndian.AppendUint16(nil, uint16(c.narrowed(id)))
		}
		if l.write(n, c.address(n.args[k]), b) != nil {
			return failed(unix.EFAULT)
		}
	}
	return response{}
}

// narrowed is an id as calls with 16 bits show it.
func (c *call) narrowed(id uint32) uint32 {
	if c.short && id > 0xffff {
		return 0xfffe
	}
	return id
}

// process returns what the process of a thread is told about its ids, which
// it has from its parent until it changes them. Forks are not seen: what a
// parent changes between a fork and the child's first question is the child's,
// too.
func (l *Listener) process(tid uint32) *credentials {
	tgid, ok := l.threadGroup(tid)
	if !ok {
		return nil
	}
	var young []uint32
	var starts []uint64
	found := credentials{}
	for pid := tgid; pid != 0 && len(young) < 1000; {
		parent, start, ok := l.parent(pid)
		if !ok {
			break
		}
		if p := l.processes[pid]; p != nil && p.start == start {
			if len(young) == 0 {
				return p
			}
			found = *p
			break
		}
		young, starts = append(young, pid), append(starts, start)
		pid = parent
	}
	if len(young) == 0 {
		return nil
	}
	if len(l.processes) > maxProcesses {
		for pid, p := range l.processes {
			if _, start, ok := l.parent(pid); !ok || start != p.start {
				delete(l.processes, pid)
			}
		}
	}
	p := &credentials{user: found.user, group: found.group, start: starts[0]}
	l.processes[young[0]] = p
	return p
}

// threadGroup is the process of a thread.
func (l *Listener) threadGroup(tid uint32) (uint32, bool) {
	b, err := l.readProc(procName(tid, "status"))
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(b, []byte("\nTgid:\t"))
	if !ok {
		return 0, false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.ParseUint(string(line), 10, 32)
	return uint32(n), err == nil
}

// parent returns the number of a process's parent, and when it was started.
func (l *Listener) parent(pid uint32) (parent uint32, start uint64, ok bool) {
	b, err := l.readProc(procName(pid, "stat"))
	if err != nil {
		return 0, 0, false
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return 0, 0, false
	}
	p, err1 := strconv.ParseUint(f[1], 10, 32)
	s, err2 := strconv.ParseUint(f[19], 10, 64)
	return uint32(p), s, err1 == nil && err2 == nil
}

func (l *Listener) readProc(name string) ([]byte, error) {
	fd, err := unix.Openat(l.proc, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, os.Getpagesize())
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
