package copier

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xattr is one extended attribute.
type xattr struct {
	name  string
	value []byte
}

// keepsXattr reports whether an attribute belongs to the content of an image.
// File capabilities and the user's own do. Overlay's bookkeeping never does: a
// copied opaque mark or redirect would change what the next overlay shows.
// Labels and ACLs belong to the host and are not part of layers. Remembered
// owners are given with the owner, and nobody else's word is taken for them.
func keepsXattr(name string) bool {
	if name == "security.capability" {
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && name != OwnerXattr
}

// listXattrs returns what belongs to the content, sorted by name; nil for
// most files.
func listXattrs(fd int) ([]xattr, error) {
	var buf [1024]byte
	names := buf[:]
	n, err := unix.Flistxattr(fd, names)
	for err == unix.ERANGE || err == unix.EINTR {
		if err == unix.ERANGE {
			names = make([]byte, 64<<10) // XATTR_LIST_MAX
		}
		n, err = unix.Flistxattr(fd, names)
	}
	if err == unix.ENOTSUP || err == unix.EBADF || n <= 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []xattr
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !keepsXattr(name) {
			continue
		}
		value, err := getXattr(fd, name)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", show(name), err)
		}
		out = append(out, xattr{name, value})
	}
	slices.SortFunc(out, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

func getXattr(fd int, name string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Fgetxattr(fd, name, buf)
		switch {
		case err == unix.EINTR:
		case err == unix.ERANGE && len(buf) < 64<<10: // XATTR_SIZE_MAX
			buf = make([]byte, 64<<10)
		case err != nil:
			return nil, err
		default:
			return buf[:n:n], nil
		}
	}
}

// setXattrs writes attributes; it comes after chown(2), which drops file
// capabilities.
func setXattrs(fd int, attrs []xattr) error {
	for _, a := range attrs {
		err := unix.Fsetxattr(fd, a.name, a.value, 0)
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM) && a.name == "security.capability":
			return fmt.Errorf("set file capabilities: %w (the user namespace may not give them; run as root or drop them from the source)", err)
		case errors.Is(err, unix.ENOTSUP):
			return fmt.Errorf("set extended attribute %s: %w (the store's file system has none of that kind)", show(a.name), err)
		default:
			return fmt.Errorf("set extended attribute %s: %w", show(a.name), err)
		}
	}
	return nil
}

// replaceXattrs makes the attributes of an existing directory those given.
func replaceXattrs(fd int, attrs []xattr) error {
	old, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, o := range old {
		if !slices.ContainsFunc(attrs, func(a xattr) bool { return a.name == o.name }) {
			if err := unix.Fremovexattr(fd, o.name); err != nil && err != unix.ENODATA {
				return fmt.Errorf("remove extended attribute %s: %w", show(o.name), err)
			}
		}
	}
	return setXattrs(fd, attrs)
}
