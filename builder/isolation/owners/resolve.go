package owners

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func procName(pid uint32, name string) string { return strconv.Itoa(int(pid)) + "/" + name }

// object is what a call is about.
type object struct {
	fd  int // O_PATH
	stx unix.Statx_t
}

func (o *object) close() { unix.Close(o.fd) }

// own reports whether it lies where owners are remembered, and is the one
// id's.
func (l *Listener) own(o *object) bool {
	if o.stx.Mask&unix.STATX_MNT_ID == 0 {
		return false
	}
	_, ok := l.mounts[o.stx.Mnt_id]
	return ok && o.stx.Uid == 0 && o.stx.Gid == 0
}

// find opens what the call names. ok is false when the kernel is to say what
// is wrong, or when the caller has gone.
func (l *Listener) find(n *notification, c *call) (o object, ok bool) {
	if !l.enter() {
		return o, false
	}
	var err error
	if o.fd, err = l.open(n, c); err != nil {
		return o, false
	}
	return o, l.look(n, &o) == nil
}

// enter puts the thread into the step's mount namespace and root, with our
// /proc as its working directory.
func (l *Listener) enter() bool {
	if l.entered {
		return true
	}
	if l.lost {
		return false
	}
	err := unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Setns(l.ns, unix.CLONE_NEWNS)
	}
	if err == nil {
		l.rootFD, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	var stx unix.Statx_t
	if err == nil {
		err = unix.Statx(l.rootFD, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &stx)
	}
	if err == nil && stx.Mnt_id != l.root {
		err = fmt.Errorf("the step's root is another mount")
	}
	if err == nil {
		err = unix.Fchdir(l.proc)
	}
	if err != nil {
		l.lost, l.err = true, fmt.Errorf("entering the step's root: %w", err)
		return false
	}
	l.entered, l.rootIno = true, stx.Ino
	return true
}

// open opens what the call names as O_PATH.
func (l *Listener) open(n *notification, c *call) (int, error) {
	flags := 0
	if c.flags >= 0 {
		flags = int(int32(n.args[c.flags]))
	}
	dir := int32(unix.AT_FDCWD)
	if c.dir >= 0 {
		dir = int32(n.args[c.dir])
	}
	if c.path < 0 {
		return l.descriptor(n.pid, dir)
	}
	address := c.address(n.args[c.path])
	var path string
	if address != 0 || flags&unix.AT_EMPTY_PATH == 0 {
		var err error
		if path, err = readPath(n.pid, address); err != nil {
			return -1, err
		}
	}
	if path == "" {
		if flags&unix.AT_EMPTY_PATH == 0 {
			return -1, unix.ENOENT
		}
		return l.descriptor(n.pid, dir)
	}
	return l.lookup(n.pid, dir, path, c.nofollow || flags&unix.AT_SYMLINK_NOFOLLOW != 0)
}

// descriptor opens what the caller's descriptor is.
func (l *Listener) descriptor(pid uint32, fd int32) (int, error) {
	name := "cwd"
	switch {
	case fd >= 0:
		name = "fd/" + strconv.Itoa(int(fd))
	case fd != unix.AT_FDCWD:
		return -1, unix.EBADF
	}
	return unix.Openat(l.proc, procName(pid, name), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// lookup walks path as the caller would. The thread's root is the step's, so
// that neither ".." nor links lead out of it; a caller that has changed its
// root gets that one.
func (l *Listener) lookup(pid uint32, dir int32, path string, nofollow bool) (int, error) {
	if fd, ok := ownDescriptor(path); ok && !nofollow {
		return l.descriptor(pid, fd)
	}
	var stx unix.Statx_t
	if err := unix.Statx(l.proc, procName(pid, "root"), 0, unix.STATX_INO|unix.STATX_MNT_ID, &stx); err != nil {
		return -1, err
	}
	if stx.Mnt_id != l.root || stx.Ino != l.rootIno {
		if err := l.changeRoot(procName(pid, "root")); err != nil {
			return -1, err
		}
		defer l.backToRoot()
	}
	at := unix.AT_FDCWD
	if path[0] != '/' {
		var err error
		if at, err = l.descriptor(pid, dir); err != nil {
			return -1, err
		}
		defer unix.Close(at)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if nofollow {
		how.Flags |= unix.O_NOFOLLOW
	}
	return unix.Openat2(at, path, &how)
}

// changeRoot makes the thread's root that of a caller that has called
// chroot(2).
func (l *Listener) changeRoot(name string) error {
	fd, err := unix.Openat(l.proc, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	err = unix.Chroot(".")
	if e := unix.Fchdir(l.proc); err == nil {
		err = e
	}
	return err
}

func (l *Listener) backToRoot() {
	err := unix.Fchdir(l.rootFD)
	if err == nil {
		err = unix.Chroot(".")
	}
	if err == nil {
		err = unix.Fchdir(l.proc)
	}
	if err != nil {
		// It must not go on in a root that a caller has chosen.
		l.entered, l.lost, l.err = false, true, fmt.Errorf("leaving a caller's root: %w", err)
	}
}

// ownDescriptor reads the names that a process has for its descriptors: in
// our hands they would mean ours, and links of /proc are not followed.
func ownDescriptor(path string) (int32, bool) {
	for _, prefix := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			fd, err := strconv.ParseUint(rest, 10, 31)
			return int32(fd), err == nil
		}
	}
	return 0, false
}

var pageSize = uint64(os.Getpagesize())

// readPath reads a path from the caller's memory.
func readPath(pid uint32, address uint64) (string, error) {
	var buf [unix.PathMax]byte
	for n := 0; n < len(buf); {
		// Up to the page's end: what lies behind may not be there.
		size := min(int(pageSize-(address+uint64(n))%pageSize), len(buf)-n)
		got, err := readSome(pid, address+uint64(n), buf[n:n+size])
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(buf[n:n+got], 0); end >= 0 {
			return string(buf[:n+end]), nil
		}
		n += got
	}
	return "", unix.ENAMETOOLONG
}

func readSome(pid uint32, address uint64, b []byte) (int, error) {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	got, err := unix.ProcessVMReadv(int(pid), local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	if err != nil || got <= 0 {
		return 0, unix.EFAULT
	}
	return got, nil
}

// readMemory fills b from the caller's memory.
func readMemory(pid uint32, address uint64, b []byte) error {
	for len(b) > 0 {
		n, err := readSome(pid, address, b)
		if err != nil {
			return err
		}
		b, address = b[n:], address+uint64(n)
	}
	return nil
}
