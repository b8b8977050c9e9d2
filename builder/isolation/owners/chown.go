package owners

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// self is the name, from the thread's working directory, of one of our
// descriptors. Attributes of what is open as O_PATH are reached by it alone.
func self(fd int) string { return "self/fd/" + strconv.Itoa(fd) }

// chown gives the named file to an owner of the image's.
func (l *Listener) chown(n *notification, c *call) response {
	uid, gid := c.id(n.args[c.uid]), c.id(n.args[c.gid])
	if c.flags >= 0 && n.args[c.flags]&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return pass // EINVAL
	}
	o, ok := l.find(n, c)
	if !ok {
		return pass
	}
	defer o.close()
	was, remembered := l.owner(&o)
	told := l.told(n.pid)
	if uid == keep && gid == keep {
		l.keep(&o)
		return pass
	}
	if (uid == 0 || uid == keep) && (gid == 0 || gid == keep) && !remembered && told.root() {
		return pass
	}
	if !told.mayChown(was, uid, gid) && !l.capable(n.pid, told, unix.CAP_CHOWN) {
		return failed(unix.EPERM)
	}
	now := was
	if uid != keep {
		now.UID = int(uid)
	}
	if gid != keep {
		now.GID = int(gid)
	}
	// What the kernel does besides: setuid and setgid bits and capabilities of
	// the file go, its times change, and it is copied into the upper.
	if err := fchown(o.fd); err != nil {
		return failed(errno(err))
	}
	if err := l.note(&o, now); err != nil {
		return failed(errno(err))
	}
	return response{}
}

// mayChown reports whether a process may give a file away that is not
// capable of it: to itself, and to groups that it is in.
func (c *credentials) mayChown(was copier.Owner, uid, gid uint32) bool {
	own := uint32(was.UID) == c.fsUser
	return own && (uid == keep || uid == c.fsUser) && (gid == keep || gid == uint32(was.GID) || c.in(gid))
}

func newOwner(c *credentials) copier.Owner {
	return copier.Owner{UID: int(c.fsUser), GID: int(c.fsGroup)}
}

// fchown is chown(2) without a change of owners.
func fchown(fd int) error {
	for {
		err := unix.Fchownat(fd, "", -1, -1, unix.AT_EMPTY_PATH)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// attributed reports the types that can have attributes of users (xattr(7)).
func (o *object) attributed() bool {
	t := o.stx.Mode & unix.S_IFMT
	return t == unix.S_IFREG || t == unix.S_IFDIR
}

// owner returns what is remembered of the object.
func (l *Listener) owner(o *object) (copier.Owner, bool) {
	if owner, ok := l.loose[looseKey{device(o), o.stx.Ino}]; ok {
		return owner, true
	}
	if o.attributed() {
		var b [32]byte
		n, err := unix.Getxattr(self(o.fd), copier.OwnerXattr, b[:])
		if err != nil {
			return copier.Owner{}, false
		}
		return copier.ParseOwner(string(b[:n]))
	}
	if l.log == nil || o.stx.Mnt_id != l.root {
		return copier.Owner{}, false
	}
	key, below, err := l.key(o)
	switch {
	case err == nil:
		return l.log.Owner(key)
	case below == "" || l.below == nil:
		return copier.Owner{}, false
	}
	// Not on this thread, whose root is the step's.
	var owner copier.Owner
	var ok bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		owner, ok = l.below(below)
	}()
	<-done
	return owner, ok
}

func device(o *object) uint64 { return unix.Mkdev(o.stx.Dev_major, o.stx.Dev_minor) }

// note remembers the object's owner; its own, on the disk, needs no note.
func (l *Listener) note(o *object, owner copier.Owner) error {
	l.remembers = true
	if o.attributed() {
		var err error
		if owner == (copier.Owner{}) {
			if err = unix.Removexattr(self(o.fd), copier.OwnerXattr); errors.Is(err, unix.ENODATA) {
				err = nil
			}
		} else {
			err = unix.Setxattr(self(o.fd), copier.OwnerXattr, owner.Append(nil), 0)
		}
		if !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	} else if l.log != nil && o.stx.Mnt_id == l.root {
		key, _, err := l.key(o)
		if err == nil {
			return l.log.Note(key, owner)
		}
		if !errors.Is(err, errDeleted) {
			l.err = fmt.Errorf("owners of symbolic links: %w", err)
		}
	}
	// As long as the step runs.
	l.loose[looseKey{device(o), o.stx.Ino}] = owner
	return nil
}

var errDeleted = errors.New("it has no name")

// key names the object's inode in the upper directory, which has it: fchown
// was called. The name is that of a moment, so that what is found under it is
// compared: its time of change is to the nanosecond. For what the upper does
// not have, below is the path.
func (l *Listener) key(o *object) (key copier.FileKey, below string, err error) {
	for range 10 {
		var b [unix.PathMax]byte
		n, err := unix.Readlink(self(o.fd), b[:])
		if err != nil {
			return key, "", err
		}
		name := string(b[:n])
		if strings.HasSuffix(name, " (deleted)") {
			return key, "", errDeleted
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
		fd, err := unix.Openat2(l.upper, strings.TrimPrefix(name, "/"), &how)
		if errors.Is(err, unix.ENOENT) {
			// Of a lower layer and untouched, or renamed just now.
			var again [unix.PathMax]byte
			if m, err := unix.Readlink(self(o.fd), again[:]); err == nil && string(again[:m]) == name {
				return key, strings.TrimPrefix(name, "/"), unix.ENOENT
			}
			continue
		}
		if err != nil {
			continue
		}
		var up, now unix.Statx_t
		const mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, mask, &up)
		if err == nil {
			err = unix.Statx(o.fd, "", unix.AT_EMPTY_PATH, mask, &now)
		}
		same := err == nil && up.Mode == now.Mode && up.Ctime == now.Ctime && up.Btime == now.Btime && up.Size == now.Size
		if same {
			key, err = copier.KeyOf(fd)
		}
		unix.Close(fd)
		if err != nil || same {
			return key, "", err
		}
	}
	return key, "", errors.New("its name changes all the time")
}
