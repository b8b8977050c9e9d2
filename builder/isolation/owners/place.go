package owners

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// place is a name that a call is about: what it names, there may not be.
type place struct {
	dir  object // what the name lies in
	name string // one component
}

func (p *place) close() { p.dir.close() }

// errNoPlace says that the kernel is to decide: it will refuse, or the name
// is none that a file can be made with.
var errNoPlace = errors.New("no place for a file")

// split returns the directory of a path and the name in it. Slashes at the
// end are left out.
func split(path string) (dir, name string, ok bool) {
	path = strings.TrimRight(path, "/")
	at := strings.LastIndexByte(path, '/')
	name = path[at+1:]
	switch {
	case name == "" || name == "." || name == "..":
		return "", "", false
	case at < 0:
		return ".", name, true
	case at == 0:
		return "/", name, true
	}
	return path[:at], name, true
}

// placeOf opens the directory of the name in an argument; dirArg is the index
// of the directory's descriptor, or -1. The directory is where owners are
// remembered.
func (l *Listener) placeOf(n *notification, c *call, dirArg, pathArg int) (place, error) {
	if !l.enter() {
		return place{}, errNoPlace
	}
	path, err := readPath(n.pid, c.address(n.args[pathArg]))
	if err != nil {
		return place{}, err
	}
	dir := int32(unix.AT_FDCWD)
	if dirArg >= 0 {
		dir = int32(n.args[dirArg])
	}
	return l.placeAt(n, dir, path)
}

func (l *Listener) placeAt(n *notification, dir int32, path string) (p place, err error) {
	at, name, ok := split(path)
	if !ok {
		return p, errNoPlace
	}
	p.name = name
	if at == "." {
		if p.dir.fd, err = l.descriptor(n.pid, dir); err != nil {
			return p, err
		}
	} else if p.dir.fd, err = l.lookup(n.pid, dir, at, false); err != nil {
		return p, err
	}
	return p, l.look(n, &p.dir)
}

// look reads what was opened for a caller, and closes it unless it lies where
// owners are remembered and the caller is still there: who else would have
// chosen it?
func (l *Listener) look(n *notification, o *object) error {
	if !l.valid(n.id) || unix.Statx(o.fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT,
		unix.STATX_BASIC_STATS|unix.STATX_BTIME|unix.STATX_MNT_ID, &o.stx) != nil || !l.own(o) {
		o.close()
		return errNoPlace
	}
	return nil
}

// child opens what has the name, if there is something and it is on a mount
// of ours.
func (l *Listener) child(n *notification, p *place) (o object, err error) {
	if o.fd, err = unix.Openat(p.dir.fd, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return o, err
	}
	return o, l.look(n, &o)
}

// wants are the bits of access(2), as in a mode.
type wants uint16

const (
	wantX wants = 1 << iota
	wantW
	wantR
)

// may reports whether the mode of an object allows a process what it wants:
// the kernel takes it for the owner of everything. root is the kernel's.
func (l *Listener) may(c *credentials, o *object, want wants) bool {
	if c.fsUser == 0 {
		return true
	}
	owner, mode := l.ownerOf(o), wants(o.stx.Mode)
	switch {
	case uint32(owner.UID) == c.fsUser:
		mode >>= 6
	case c.in(uint32(owner.GID)):
		mode >>= 3
	}
	return mode&want == want
}

// ownerOf is the object's owner: the one id's is root's.
func (l *Listener) ownerOf(o *object) copier.Owner {
	owner, _ := l.owner(o)
	return owner
}

// mayRemove reports whether a process may take away the name of what is o.
func (l *Listener) mayRemove(c *credentials, p *place, o *object) unix.Errno {
	if !l.may(c, &p.dir, wantW|wantX) {
		return unix.EACCES
	}
	if p.dir.stx.Mode&unix.S_ISVTX != 0 && c.fsUser != 0 &&
		uint32(l.ownerOf(o).UID) != c.fsUser && uint32(l.ownerOf(&p.dir).UID) != c.fsUser {
		return unix.EPERM
	}
	return 0
}

// pending is a file that a call makes after it was answered.
type pending struct {
	caller uint32
	place
	owner copier.Owner
}

// maxPending bounds what is kept for callers that ended in the call.
const maxPending = 256

// expect has what is made with a name noted as the process's own, as soon as
// it can be seen. The name is not there now. In a directory with the setgid
// bit, files are of its group.
func (l *Listener) expect(n *notification, c *credentials, p place) response {
	owner := newOwner(c)
	if p.dir.stx.Mode&unix.S_ISGID != 0 {
		owner.GID = l.ownerOf(&p.dir).GID
	}
	if owner == (copier.Owner{}) {
		p.close()
		return pass
	}
	if len(l.pending) >= maxPending {
		l.dropDead()
	}
	l.pending = append(l.pending, pending{n.pid, p, owner})
	return pass
}

// settle notes what was made. caller is a thread whose earlier calls have
// ended; 0 stands for all.
func (l *Listener) settle(caller uint32) {
	kept := l.pending[:0]
	for i := range l.pending {
		p := &l.pending[i]
		if !l.made(p) && caller != 0 && p.caller != caller {
			kept = append(kept, *p)
			continue
		}
		p.close()
	}
	clear(l.pending[len(kept):])
	l.pending = kept
}

// made notes the owner of a pending file, if it is there.
func (l *Listener) made(p *pending) bool {
	var o object
	var err error
	if o.fd, err = unix.Openat(p.dir.fd, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return false
	}
	defer o.close()
	if unix.Statx(o.fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME|unix.STATX_MNT_ID, &o.stx) != nil || !l.own(&o) {
		return true
	}
	if _, noted := l.owner(&o); !noted {
		if err := l.note(&o, p.owner); err != nil && l.err == nil {
			l.err = err
		}
	}
	return true
}

// dropDead drops what callers that are no more had in mind.
func (l *Listener) dropDead() {
	l.pending = deleteFunc(l.pending, func(p *pending) bool {
		var st unix.Stat_t
		if unix.Fstatat(l.proc, procName(p.caller, "stat"), &st, 0) == nil {
			return false
		}
		p.close()
		return true
	})
}

func deleteFunc(list []pending, drop func(*pending) bool) []pending {
	kept := list[:0]
	for i := range list {
		if !drop(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	clear(list[len(kept):])
	return kept
}

// openFlags are those of a call of open(2)'s family.
func (l *Listener) openFlags(n *notification, c *call) (uint64, bool) {
	switch c.open {
	case creatFlags:
		return unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, true
	case howFlags:
		var b [8]byte
		if n.args[3] < 8 || readMemory(n.pid, c.address(n.args[2]), b[:]) != nil {
			return 0, false
		}
		return binary.NativeEndian.Uint64(b[:]), true
	}
	return n.args[c.open], true
}
