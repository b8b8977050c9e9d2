package owners

import (
	"encoding/binary"
	"slices"

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

// credentials are what a process is told about its ids. They can be compared.
type credentials struct {
	user, group ids
	// fsUser and fsGroup are those that files are made with and looked at.
	fsUser, fsGroup uint32
	groups          groupList
}

// groupList holds supplementary groups, four bytes each.
type groupList string

func newGroupList(groups []uint32) groupList {
	var b []byte
	for _, g := range groups {
		b = binary.NativeEndian.AppendUint32(b, g)
	}
	return groupList(b)
}

func (g groupList) len() int { return len(g) / 4 }

func (g groupList) at(i int) uint32 { return binary.NativeEndian.Uint32([]byte(g[4*i : 4*i+4])) }

func (g groupList) has(id uint32) bool {
	for i := range g.len() {
		if g.at(i) == id {
			return true
		}
	}
	return false
}

// in reports whether files of the group are the process's group's.
func (c *credentials) in(group uint32) bool { return c.fsGroup == group || c.groups.has(group) }

// root reports a process that the kernel is to decide about.
func (c *credentials) root() bool { return c.user[effective] == 0 && c.fsUser == 0 }

// newCredentials are those of a process that a user begins with.
func newCredentials(uid, gid uint32, groups []uint32) credentials {
	return credentials{ids{uid, uid, uid}, ids{gid, gid, gid}, uid, gid, newGroupList(groups)}
}

// A process whose credentials are not the step's first ones has a tag, which
// its children inherit by fork(2), keep in execve(2), and share with its
// threads: the soft limit RLIMIT_LOCKS (getrlimit(2)), which the kernel has not
// enforced since Linux 2.4. A program that sets it is who began the step.
const (
	rlimitLocks = 10
	firstTag    = 0x5354_0000
	maxTags     = 1 << 12
)

// told returns what the process of a thread is told about its ids.
func (l *Listener) told(tid uint32) *credentials {
	if len(l.tags) == 0 {
		return &l.first
	}
	var limit unix.Rlimit
	if unix.Prlimit(int(tid), rlimitLocks, nil, &limit) == nil && limit.Cur-firstTag < uint64(len(l.tags)) {
		return &l.tags[limit.Cur-firstTag]
	}
	return &l.first
}

// tell changes what a process is told.
func (l *Listener) tell(n *notification, c credentials) error {
	at := slices.Index(l.tags, c)
	if at < 0 {
		if len(l.tags) == maxTags {
			return unix.EAGAIN
		}
		at = len(l.tags)
		l.tags = append(l.tags, c)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(int(n.pid), rlimitLocks, nil, &limit); err != nil {
		return err
	}
	limit.Cur = firstTag + uint64(at)
	if !l.valid(n.id) {
		return unix.ESRCH
	}
	if err := unix.Prlimit(int(n.pid), rlimitLocks, &limit, nil); err != nil {
		return unix.EAGAIN // its hard limit is low
	}
	return nil
}

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
	if !foreign && len(l.tags) == 0 && l.first.user == (ids{}) && l.first.group == (ids{}) {
		return pass
	}
	now := *l.told(n.pid)
	if !l.valid(n.id) {
		return pass
	}
	privileged := now.user[effective] == 0
	if privileged && foreign && !l.capable(n.pid, &now, c.capability()) {
		if now.user == (ids{}) && now.group == (ids{}) {
			return pass // the kernel says what it says about such ids
		}
		privileged = false
	}
	was := now
	of, files := &now.user, &now.fsUser
	if c.group {
		of, files = &now.group, &now.fsGroup
	}
	if c.name == "setfs" {
		// It returns what was, whether or not it changed anything.
		before := *files
		if want[0] != keep && (privileged || of.has(want[0]) || want[0] == before) {
			*files = want[0]
		}
		if now != was && l.tell(n, now) != nil {
			return pass
		}
		return response{val: int64(c.narrowed(before))}
	}
	if !of.change(c, want, privileged) {
		return failed(unix.EPERM)
	}
	*files = of[effective]
	if now != was {
		if err := l.tell(n, now); err != nil {
			return failed(errno(err))
		}
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
	}
	return true
}

// maxGroups is NGROUPS_MAX.
const maxGroups = 1 << 16

// setGroups answers setgroups(2), which the kernel denies.
func (l *Listener) setGroups(n *notification, c *call) response {
	now := *l.told(n.pid)
	if !l.valid(n.id) {
		return pass
	}
	if now.user[effective] != 0 || !l.capable(n.pid, &now, unix.CAP_SETGID) {
		return failed(unix.EPERM)
	}
	count := int32(n.args[0])
	if count < 0 || count > maxGroups {
		return failed(unix.EINVAL)
	}
	size := 4
	if c.short {
		size = 2
	}
	b := make([]byte, int(count)*size)
	if readMemory(n.pid, c.address(n.args[1]), b) != nil || !l.valid(n.id) {
		return failed(unix.EFAULT)
	}
	groups := make([]uint32, count)
	for i := range groups {
		if c.short {
			groups[i] = uint32(binary.NativeEndian.Uint16(b[2*i:]))
		} else {
			groups[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
	}
	was := now
	if now.groups = newGroupList(groups); now == was {
		return response{}
	}
	if err := l.tell(n, now); err != nil {
		return failed(errno(err))
	}
	return response{}
}

// getGroups answers getgroups(2).
func (l *Listener) getGroups(n *notification, c *call) response {
	if l.keepGroups {
		return pass
	}
	list := l.told(n.pid).groups
	size := int32(n.args[0])
	switch {
	case size < 0, size > 0 && int(size) < list.len():
		return failed(unix.EINVAL)
	case size == 0 || list.len() == 0:
		return response{val: int64(list.len())}
	}
	var b []byte
	for i := range list.len() {
		b = c.appendID(b, list.at(i))
	}
	if l.write(n, c.address(n.args[1]), b) != nil {
		return failed(unix.EFAULT)
	}
	return response{val: int64(list.len())}
}

// getIDs answers processes whose ids are not the kernel's.
func (l *Listener) getIDs(n *notification, c *call) response {
	told := l.told(n.pid)
	of := told.user
	if c.group {
		of = told.group
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
		if l.write(n, c.address(n.args[k]), c.appendID(nil, id)) != nil {
			return failed(unix.EFAULT)
		}
	}
	return response{}
}

// appendID appends an id as the call has it in memory.
func (c *call) appendID(b []byte, id uint32) []byte {
	if c.short {
		return binary.NativeEndian.AppendUint16(b, uint16(c.narrowed(id)))
	}
	return binary.NativeEndian.AppendUint32(b, id)
}

// narrowed is an id as calls with 16 bits show it.
func (c *call) narrowed(id uint32) uint32 {
	if c.short && id > 0xffff {
		return 0xfffe
	}
	return id
}
