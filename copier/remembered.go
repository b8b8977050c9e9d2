package copier

import (
	"errors"
	"path"
	"strings"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// RememberOwners has owners that are noted of r's files be those of copies and
// digests: OwnerXattr, and what links returns of a symbolic link or special
// file, by its path below r. It is called before r is used, where one id is
// mapped and r is an image's root; links may be nil.
func (r *Root) RememberOwners(links func(name string) (Owner, bool)) {
	if links == nil {
		links = func(string) (Owner, bool) { return Owner{}, false }
	}
	r.links = links
}

// owner is who the object of state st, name in dir and real below r, belongs
// to.
func (r *Root) owner(dir int, name, real string, st *unix.Stat_t) Owner {
	own := Owner{int(st.Uid), int(st.Gid)}
	if r.links == nil || own != (Owner{}) {
		return own
	}
	noted, ok := Owner{}, false
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		noted, ok = notedAt(dir, name)
	default:
		noted, ok = r.links(strings.TrimPrefix(path.Clean(real), "/"))
	}
	if !ok {
		return own
	}
	return noted
}

// Noted is what OwnerXattr says of an open file or directory; O_PATH is
// enough.
func Noted(fd int) (Owner, bool) {
	var b [32]byte
	n, err := unix.Getxattr(at.ProcPath(fd), OwnerXattr, b[:])
	if err != nil {
		return Owner{}, false
	}
	return ParseOwner(string(b[:n]))
}

func notedAt(dir int, name string) (Owner, bool) {
	fd, err := at.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Owner{}, false
	}
	defer at.Close(fd)
	return Noted(fd)
}

// Note has an open file or directory, which may be open as O_PATH, be
// remembered as an owner's. File systems without such attributes do not.
func Note(fd int, owner Owner) error {
	name := at.ProcPath(fd)
	var err error
	if owner == (Owner{}) {
		// Looked for first: removing what is not there copies a file up.
		if _, e := unix.Getxattr(name, OwnerXattr, nil); e == nil {
			err = unix.Removexattr(name, OwnerXattr)
		}
	} else {
		err = unix.Setxattr(name, OwnerXattr, owner.Append(nil), 0)
	}
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// linkNotes is where owners of links are noted that could not be given.
type linkNotes struct {
	log   *OwnerLog
	upper *Root // the log's directory
}

// note notes the owner of the link or special file at real, a path free of
// links that has just been made.
func (n *linkNotes) note(real string, owner Owner) error {
	if n == nil || n.log == nil {
		return nil
	}
	fd, err := n.upper.resolver().OpenReal(strings.TrimPrefix(path.Clean(real), "/"), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	key, err := KeyOf(fd)
	if errors.Is(err, unix.ENOTSUP) {
		return nil // no handles: it is the one id's
	}
	if err != nil {
		return err
	}
	return n.log.Note(key, owner)
}
