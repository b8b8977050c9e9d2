package owners

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// openFile answers open(2) that may make a file or write to one.
func (l *Listener) openFile(n *notification, c *call) response {
	told := l.told(n.pid)
	flags, ok := l.openFlags(n, c)
	writing := wants(0)
	if flags&writes != 0 {
		writing = wantW
	}
	if told.fsUser == 0 {
		writing = 0
	}
	if !ok || flags&unix.O_CREAT == 0 && writing == 0 {
		return pass
	}
	dir := int32(unix.AT_FDCWD)
	if c.dir >= 0 {
		dir = int32(n.args[c.dir])
	}
	path, err := readPath(n.pid, c.address(n.args[c.path]))
	if err != nil || !l.enter() {
		return pass
	}
	if flags&unix.O_CREAT == 0 || flags&tmpFile != 0 {
		if flags&tmpFile != 0 {
			writing |= wantX // it is about the directory
		}
		return l.openThere(n, told, dir, path, writing, flags&unix.O_NOFOLLOW != 0)
	}
	if path == "" || path[len(path)-1] == '/' {
		return pass // EISDIR
	}
	p, err := l.placeAt(n, dir, path)
	if err != nil {
		return pass
	}
	if told.plain(&p) {
		p.close()
		return pass
	}
	o, err := l.child(n, &p)
	switch err {
	case unix.ENOENT:
		return l.makeAt(n, told, p)
	case nil:
		defer o.close()
		defer p.close()
	default:
		p.close()
		return pass
	}
	switch {
	case flags&unix.O_EXCL != 0, flags&unix.O_NOFOLLOW != 0 && o.isLink():
		return pass
	case !o.isLink():
		if !l.may(told, &o, writing) {
			return failed(unix.EACCES)
		}
		return pass
	}
	return l.openLink(n, told, dir, path, writing)
}

// plain reports that whatever is made there is root's, as it is on the disk.
func (c *credentials) plain(p *place) bool {
	return c.fsUser == 0 && c.fsGroup == 0 && p.dir.stx.Mode&unix.S_ISGID == 0
}

func (o *object) isLink() bool { return o.stx.Mode&unix.S_IFMT == unix.S_IFLNK }

// openThere answers for a file that is there, or will not be opened.
func (l *Listener) openThere(n *notification, told *credentials, dir int32, path string, want wants, nofollow bool) response {
	fd, err := l.lookup(n.pid, dir, path, nofollow)
	if err != nil {
		return pass
	}
	o := object{fd: fd}
	if l.look(n, &o) != nil {
		return pass
	}
	defer o.close()
	if !l.may(told, &o, want) {
		return failed(unix.EACCES)
	}
	return pass
}

// openLink answers for a symbolic link, which may lead to a name that is not
// there yet.
func (l *Listener) openLink(n *notification, told *credentials, dir int32, path string, want wants) response {
	fd, err := l.lookup(n.pid, dir, path, false)
	if err == nil {
		unix.Close(fd)
		return l.openThere(n, told, dir, path, want, false)
	}
	if err != unix.ENOENT {
		return pass
	}
	// Each link is looked at from the directory it lies in.
	for range 40 { // MAXSYMLINKS
		p, err := l.placeAt(n, dir, path)
		if err != nil {
			return pass
		}
		var b [unix.PathMax]byte
		size, err := unix.Readlinkat(p.dir.fd, p.name, b[:])
		if err == unix.ENOENT {
			return l.makeAt(n, told, p)
		}
		target := string(b[:max(size, 0)])
		if err != nil || target == "" || target[len(target)-1] == '/' {
			p.close()
			return pass
		}
		if target[0] != '/' {
			// By its name below the root: there is no descriptor of the caller's.
			base, err := l.nameOf(p.dir.fd)
			if err != nil {
				p.close()
				return pass
			}
			target = base + "/" + target
		}
		p.close()
		path = target
	}
	return pass
}

// nameOf is the path of an open directory below the step's root.
func (l *Listener) nameOf(fd int) (string, error) {
	var b [unix.PathMax]byte
	n, err := unix.Readlink(self(fd), b[:])
	return string(b[:max(n, 0)]), err
}

// makeAt answers for a name that is not there.
func (l *Listener) makeAt(n *notification, told *credentials, p place) response {
	if !l.may(told, &p.dir, wantW|wantX) {
		p.close()
		return failed(unix.EACCES)
	}
	return l.expect(n, told, p)
}

// make answers mkdir(2), mknod(2), symlink(2) and their kin.
func (l *Listener) make(n *notification, c *call) response {
	told := l.told(n.pid)
	p, err := l.placeOf(n, c, c.dir, c.path)
	if err != nil {
		return pass
	}
	if told.plain(&p) {
		p.close()
		return pass
	}
	var st unix.Stat_t
	if unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW) != unix.ENOENT {
		p.close()
		return pass // EEXIST
	}
	return l.makeAt(n, told, p)
}

// rename answers rename(2) and its kin. What has its owner in a layer's log
// and lies below the upper directory is copied up without a note: so it is
// copied up here.
func (l *Listener) rename(n *notification, c *call) response {
	told := l.told(n.pid)
	from, err := l.placeOf(n, c, c.dir, c.path)
	if err != nil {
		return pass
	}
	defer from.close()
	o, err := l.child(n, &from)
	if err != nil {
		return pass
	}
	defer o.close()
	if told.fsUser != 0 || l.inLog(&o) {
		if r := l.renameTo(n, c, told, &from, &o); r != pass {
			return r
		}
	}
	return pass
}

func (l *Listener) renameTo(n *notification, c *call, told *credentials, from *place, o *object) response {
	to, err := l.placeOf(n, c, c.toDir, c.to)
	if err != nil {
		return pass
	}
	defer to.close()
	if e := l.mayRemove(told, from, o); e != 0 {
		return failed(e)
	}
	if !l.may(told, &to.dir, wantW|wantX) {
		return failed(unix.EACCES)
	}
	l.keep(o)
	if there, err := l.child(n, &to); err == nil {
		defer there.close()
		if e := l.mayRemove(told, &to, &there); e != 0 {
			return failed(e)
		}
		l.keep(&there) // it may be an exchange
	}
	return pass
}

// inLog reports an object whose owner is, or would be, in the log.
func (l *Listener) inLog(o *object) bool {
	return !o.attributed() && l.log != nil && o.stx.Mnt_id == l.root
}

// keep copies what has a note in a lower layer's log up, with its note.
func (l *Listener) keep(o *object) {
	if !l.inLog(o) {
		return
	}
	if _, below, err := l.key(o); err == nil || below == "" {
		return
	}
	owner, noted := l.owner(o)
	if !noted || fchown(o.fd) != nil {
		return
	}
	if err := l.note(o, owner); err != nil && l.err == nil {
		l.err = err
	}
}

// link answers link(2) and linkat(2), which may name a file that was made
// without a name (O_TMPFILE).
func (l *Listener) link(n *notification, c *call) response {
	told := l.told(n.pid)
	if c.flags >= 0 && n.args[c.flags]&unix.AT_SYMLINK_FOLLOW != 0 {
		follow := *c
		follow.nofollow = false
		c = &follow
	}
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	to, err := l.placeOf(n, c, c.toDir, c.to)
	if err != nil {
		return pass
	}
	defer to.close()
	if !l.may(told, &to.dir, wantW|wantX) {
		if there, err := l.child(n, &to); err == nil {
			there.close()
			return pass // EEXIST
		}
		return failed(unix.EACCES)
	}
	l.keep(&o)
	owner := newOwner(told)
	if _, noted := l.owner(&o); o.stx.Nlink == 0 && !noted && owner.UID|owner.GID != 0 {
		if err := l.note(&o, owner); err != nil && l.err == nil {
			l.err = err
		}
	}
	return pass
}

// remove answers unlink(2) and rmdir(2).
func (l *Listener) remove(n *notification, c *call) response {
	told := l.told(n.pid)
	if told.fsUser == 0 {
		return pass
	}
	p, err := l.placeOf(n, c, c.dir, c.path)
	if err != nil {
		return pass
	}
	defer p.close()
	o, err := l.child(n, &p)
	if err != nil {
		return pass
	}
	defer o.close()
	if e := l.mayRemove(told, &p, &o); e != 0 {
		return failed(e)
	}
	return pass
}

// mode answers chmod(2) and its kin.
func (l *Listener) mode(n *notification, c *call) response {
	told := l.told(n.pid)
	if told.fsUser == 0 {
		return pass
	}
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	if uint32(l.ownerOf(&o).UID) != told.fsUser {
		return failed(unix.EPERM)
	}
	return pass
}

// times answers utimensat(2).
func (l *Listener) times(n *notification, c *call) response {
	told := l.told(n.pid)
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	l.keep(&o)
	if told.fsUser == 0 || uint32(l.ownerOf(&o).UID) == told.fsUser {
		return pass
	}
	if !l.timesNow(n, c) {
		return failed(unix.EPERM)
	}
	if !l.may(told, &o, wantW) {
		return failed(unix.EACCES)
	}
	return pass
}

// timesNow reports that a call sets both times to the present.
func (l *Listener) timesNow(n *notification, c *call) bool {
	if n.args[c.times] == 0 {
		return true
	}
	var b [32]byte // struct timespec, twice
	nsec := []int{8, 24}
	if c.narrow && !c.wide {
		nsec = []int{4, 12}
	}
	if readMemory(n.pid, c.address(n.args[c.times]), b[:nsec[1]+8]) != nil {
		return true // EFAULT
	}
	for _, at := range nsec {
		if binary.NativeEndian.Uint32(b[at+l.low(c):]) != unix.UTIME_NOW {
			return false
		}
	}
	return true
}

// low is where the low half of a long is.
func (l *Listener) low(c *call) int {
	if bigEndian && (!c.narrow || c.wide) {
		return 4
	}
	return 0
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// access answers access(2), which most ask as their real user.
func (l *Listener) access(n *notification, c *call) response {
	told := *l.told(n.pid)
	want := wantW
	if c.mode != wantsWrite {
		want = wants(n.args[c.mode]) & 7
		if c.flags < 0 || n.args[c.flags]&unix.AT_EACCESS == 0 {
			told.fsUser, told.fsGroup = told.user[real], told.group[real]
		}
	}
	if told.fsUser == 0 {
		return pass
	}
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	if !l.may(&told, &o, want) {
		return failed(unix.EACCES)
	}
	return pass
}

// exec answers execve(2): a program's setuid bits count, as the kernel, to
// which all files are the caller's, does not see it.
func (l *Listener) exec(n *notification, c *call) response {
	if l.noNewPrivileges {
		return pass
	}
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	if o.stx.Mode&unix.S_IFMT != unix.S_IFREG || o.stx.Mode&0o111 == 0 {
		return pass
	}
	now := *l.told(n.pid)
	was, owner := now, l.ownerOf(&o)
	if o.stx.Mode&unix.S_ISUID != 0 {
		now.user[effective], now.fsUser = uint32(owner.UID), uint32(owner.UID)
	}
	if o.stx.Mode&unix.S_ISGID != 0 && o.stx.Mode&unix.S_IXGRP != 0 {
		now.group[effective], now.fsGroup = uint32(owner.GID), uint32(owner.GID)
	}
	now.user[saved], now.group[saved] = now.user[effective], now.group[effective]
	if now != was {
		_ = l.tell(n, now)
	}
	return pass
}
