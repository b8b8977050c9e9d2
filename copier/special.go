package copier

import (
	"errors"
	"fmt"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// special is an object without content: a link, a FIFO or a device.
type special struct {
	mode        uint32 // with the type
	link        string
	rdev        uint64
	owner       Owner
	mtime       unix.Timespec
	ignoreChown bool
	real        string // its path below the root, for notes
	notes       *linkNotes
}

// make makes it as name in dir, in place of whatever is there but a directory.
func (s special) make(dir int, name string) error {
	typ := s.mode & unix.S_IFMT
	if typ == unix.S_IFCHR && s.rdev == 0 {
		// Overlay reads 0:0 as "deleted"; in an upper directory it would hide
		// what is below.
		return errors.New("a character device 0:0 marks a deletion in an overlay and cannot be stored")
	}
	err := replacing(dir, name, func() error {
		if typ == unix.S_IFLNK {
			return unix.Symlinkat(s.link, dir, name)
		}
		return unix.Mknodat(dir, name, s.mode&^0o7000, int(s.rdev))
	})
	if err != nil {
		if errors.Is(err, unix.EPERM) && (typ == unix.S_IFCHR || typ == unix.S_IFBLK) {
			return fmt.Errorf("%w: making device nodes needs real root; leave it out or build as root", err)
		}
		return err
	}
	var st unix.Stat_t
	if err := at.Lstat(dir, name, &st); err != nil {
		return err
	}
	if int(st.Uid) != s.owner.UID || int(st.Gid) != s.owner.GID {
		given, err := chownAt(dir, name, s.owner, s.ignoreChown)
		if err == nil && !given {
			err = s.notes.note(s.real, s.owner)
		}
		if err != nil {
			return err
		}
	}
	if typ != unix.S_IFLNK {
		if err := chmodNode(dir, name, s.mode, &st); err != nil {
			return err
		}
	}
	return at.ChtimesAt(dir, name, s.mtime)
}

// chmodNode sets the mode of a FIFO or device without opening it and without
// following a link that took its place.
func chmodNode(dir int, name string, mode uint32, st *unix.Stat_t) error {
	if st.Mode == mode {
		return nil
	}
	fd, err := at.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	var now unix.Stat_t
	if err := at.Stat(fd, &now); err != nil {
		return err
	}
	if now.Ino != st.Ino || now.Mode&unix.S_IFMT != mode&unix.S_IFMT {
		return errors.New("it was replaced while being made")
	}
	return at.Chmod(fd, mode&0o7777)
}
