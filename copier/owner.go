package copier

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// OwnerXattr holds the owner, as "UID:GID", that a file or directory has in
// the image although its id cannot be given here: where a user namespace maps
// one id, all is that id's on the disk. Layers are written with the remembered
// owner, copies of the files get it (Root.RememberOwners), and RUN steps are
// told it. Symbolic links and special files cannot have such attributes
// (xattr(7)): OwnerLog has theirs.
const OwnerXattr = "user.strata.owner"

// ParseOwner reads the value of OwnerXattr.
func ParseOwner(value string) (Owner, bool) {
	uid, gid, ok := strings.Cut(value, ":")
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	const none = 1<<32 - 1 // chown(2): leave as it is
	if !ok || err1 != nil || err2 != nil || u == none || g == none {
		return Owner{}, false
	}
	return Owner{int(u), int(g)}, true
}

// Append appends the form that ParseOwner reads.
func (o Owner) Append(b []byte) []byte { return fmt.Appendf(b, "%d:%d", o.UID, o.GID) }

// remember notes an owner that could not be given. File systems without such
// attributes lose it, as all did before.
func remember(fd int, owner Owner) {
	_ = at.Retry(func() error {
		return unix.Fsetxattr(fd, OwnerXattr, owner.Append(nil), 0)
	})
}

// forget takes away what remember has noted of an earlier owner.
func forget(fd int) { _ = at.Retry(func() error { return unix.Fremovexattr(fd, OwnerXattr) }) }

// chown gives the open object to owner unless it is already; st is its state,
// which is brought up to date (chown(2) drops setuid and setgid bits).
func chown(fd int, st *unix.Stat_t, owner Owner, ignore bool) error {
	if int(st.Uid) == owner.UID && int(st.Gid) == owner.GID {
		if ignore {
			forget(fd)
		}
		return nil
	}
	err := at.Retry(func() error { return unix.Fchown(fd, owner.UID, owner.GID) })
	if err != nil {
		if err = chownError(err, owner, ignore); err == nil {
			remember(fd, owner)
		}
		return err
	}
	st.Uid, st.Gid = uint32(owner.UID), uint32(owner.GID)
	st.Mode &^= unix.S_ISUID | unix.S_ISGID
	return nil
}

// chownAt is chown for what cannot be opened, and says whether the owner could
// be given.
func chownAt(dir int, name string, owner Owner, ignore bool) (given bool, err error) {
	err = at.Retry(func() error {
		return unix.Fchownat(dir, name, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW)
	})
	return err == nil, chownError(err, owner, ignore)
}

func chownError(err error, owner Owner, ignore bool) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL):
		// An id that the user namespace does not map is EINVAL.
		if ignore {
			return nil
		}
		return fmt.Errorf("give to %d:%d: the user namespace does not map these ids; add ranges to /etc/subuid and /etc/subgid, or ignore chown errors: %w", owner.UID, owner.GID, err)
	case errors.Is(err, unix.EPERM):
		if ignore {
			return nil
		}
		return fmt.Errorf("give to %d:%d: %w (needs root or a user namespace)", owner.UID, owner.GID, err)
	}
	return fmt.Errorf("give to %d:%d: %w", owner.UID, owner.GID, err)
}
