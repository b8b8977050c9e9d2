package layer

import (
	"errors"
	"slices"
	"strings"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// overlayMarks are what overlay's own attributes say of an object.
type overlayMarks struct {
	opaque   bool // nothing below shows through this directory
	whiteout bool // an empty file that stands for a deletion

	// owner is what the object has in the image, where owned says that it is
	// another than on the disk (copier.OwnerXattr).
	owner copier.Owner
	owned bool
}

// readXattrs returns the attributes that go into a layer, as
// containers/storage chooses them: security.capability, security.ima and
// user.*, but not overlay's own; and overlay's marks.
func readXattrs(fd int, userXattr bool) ([]xattr, overlayMarks, error) {
	var marks overlayMarks
	var small [256]byte
	list := small[:]
	n, err := unix.Flistxattr(fd, list)
	for errors.Is(err, unix.ERANGE) {
		if n, err = unix.Flistxattr(fd, nil); err == nil {
			list = make([]byte, n+64)
			n, err = unix.Flistxattr(fd, list)
		}
	}
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, marks, nil
		}
		return nil, marks, err
	}
	if n == 0 {
		return nil, marks, nil
	}
	own := "trusted.overlay."
	if userXattr {
		own = "user.overlay."
	}
	var found []xattr
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		mark, isOwn := strings.CutPrefix(name, own)
		switch {
		case isOwn && mark == "opaque":
			v, err := fgetxattr(fd, name)
			if err != nil {
				return nil, marks, err
			}
			marks.opaque = v == "y"
		case isOwn && mark == "whiteout":
			marks.whiteout = true
		case userXattr && name == copier.OwnerXattr:
			// Only a user namespace has need of it: in an image that root
			// changes it is an attribute like others.
			v, err := fgetxattr(fd, name)
			if err != nil {
				return nil, marks, err
			}
			marks.owner, marks.owned = copier.ParseOwner(v)
		case name == "security.capability", name == "security.ima",
			strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay."):
			v, err := fgetxattr(fd, name)
			if errors.Is(err, unix.ENODATA) {
				continue
			}
			if err != nil {
				return nil, marks, err
			}
			found = append(found, xattr{name, v})
		}
	}
	slices.SortFunc(found, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return found, marks, nil
}

// apply gives an entry the owner that is remembered of it.
func (m *overlayMarks) apply(e *entry) {
	if m.owned {
		e.uid, e.gid = int64(m.owner.UID), int64(m.owner.GID)
	}
}

func fgetxattr(fd int, name string) (string, error) {
	var small [256]byte
	n, err := unix.Fgetxattr(fd, name, small[:])
	if err == nil {
		return string(small[:n]), nil
	}
	for errors.Is(err, unix.ERANGE) {
		if n, err = unix.Fgetxattr(fd, name, nil); err != nil {
			break
		}
		buf := make([]byte, n+64)
		if n, err = unix.Fgetxattr(fd, name, buf); err == nil {
			return string(buf[:n]), nil
		}
	}
	return "", err
}
