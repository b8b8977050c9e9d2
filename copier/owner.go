package copier

import (
	"errors"
	"fmt"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// chown gives the open object to owner unless it is already; st is its state,
// which is brought up to date (chown(2) drops setuid and setgid bits).
func chown(fd int, st *unix.Stat_t, owner Owner, ignore bool) error {
	if int(st.Uid) == owner.UID && int(st.Gid) == owner.GID {
		return nil
	}
	err := at.Retry(func() error { return unix.Fchown(fd, owner.UID, owner.GID) })
	if err != nil {
		return chownError(err, owner, ignore)
	}
	st.Uid, st.Gid = uint32(owner.UID), uint32(owner.GID)
	st.Mode &^= unix.S_ISUID | unix.S_ISGID
	return nil
}

// chownAt is chown for what cannot be opened.
func chownAt(dir int, name string, owner Owner, ignore bool) error {
	err := at.Retry(func() error {
		return unix.Fchownat(dir, name, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW)
	})
	return chownError(err, owner, ignore)
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
