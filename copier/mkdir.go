package copier

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/copier/internal/resolve"
	"golang.org/x/sys/unix"
)

// Mkdir says how Root.MkdirAll makes what is missing.
type Mkdir struct {
	Owner Owner
	// Mode of the directories made; 0 is 0755.
	Mode fs.FileMode
	// ModTime of the directories made; zero: the modification time of the
	// nearest directory that existed, so that equal inputs give equal layers.
	// The times of directories that existed are kept.
	ModTime time.Time
}

// MkdirAll makes unsafePath and what is missing above it, inside r, and
// returns the paths it made, topmost first, absolute in r and free of links.
// Where a dangling link leads, the directory is made. A non-directory in the
// way is an error.
func (r *Root) MkdirAll(unsafePath string, m Mkdir) ([]string, error) {
	var times keepTimes
	mk := dirMaker{owner: &m.Owner, mode: permBits(m.Mode), keep: times.add}
	if mk.mode == 0 {
		mk.mode = 0o755
	}
	if !m.ModTime.IsZero() {
		ts := timespec(m.ModTime)
		mk.mtime = &ts
	}
	fd, _, err := r.resolver().MkdirAll(unsafePath, mk.make)
	at.Close(fd)
	if terr := times.restore(); err == nil {
		err = terr
	}
	if err != nil {
		return mk.made, dirError("make directory", unsafePath, err)
	}
	return mk.made, nil
}

func optionalTime(t *time.Time) *unix.Timespec {
	if t == nil {
		return nil
	}
	ts := timespec(*t)
	return &ts
}

// dirError explains what the kernel's words leave open.
func dirError(op, unsafePath string, err error) error {
	if errors.Is(err, unix.ENOTDIR) {
		return fail(op, unsafePath, fmt.Errorf("something on the path is %w", err))
	}
	return fail(op, unsafePath, err)
}

// dirMaker makes the directories that a destination lacks.
type dirMaker struct {
	owner *Owner // nil is 0:0
	mode  uint32
	mtime *unix.Timespec // nil: that of the nearest existing directory
	// keep notes a directory and the modification time it is to have in the
	// end.
	keep func(fd int, path string, mtime unix.Timespec) error
	made []string
	// noted tells the time that an existing directory will have, if that is
	// not the one it has now; may be nil.
	noted func(realPath string) (unix.Timespec, bool)
	// ignoreChown keeps going when the owner cannot be set.
	ignoreChown bool
}

var _ resolve.Make = (*dirMaker)(nil).make

func (m *dirMaker) make(parent int, name, realPath string) error {
	if isWhiteoutName(name) {
		return errWhiteoutName
	}
	// The walk's descriptors are O_PATH, which cannot set times.
	dir, err := at.Open(parent, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer at.Close(dir)
	var st unix.Stat_t
	if err := at.Stat(dir, &st); err != nil {
		return err
	}
	if len(m.made) == 0 {
		if m.mtime == nil {
			existing := st.Mtim
			if m.noted != nil {
				if t, ok := m.noted(path.Dir(realPath)); ok {
					existing = t
				}
			}
			m.mtime = &existing
		}
		if err := m.keep(dir, path.Dir("/"+realPath), st.Mtim); err != nil {
			return err
		}
	}
	if err := at.Retry(func() error { return unix.Mkdirat(dir, name, 0o700) }); err != nil {
		return err // EEXIST is the caller's
	}
	fd, err := at.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	m.made = append(m.made, "/"+realPath)
	if err := m.keep(fd, "/"+realPath, *m.mtime); err != nil {
		return err
	}
	owner := Owner{}
	if m.owner != nil {
		owner = *m.owner
	}
	if err := at.Stat(fd, &st); err != nil {
		return err
	}
	if err := chown(fd, &st, owner, m.ignoreChown); err != nil {
		return err
	}
	// A default ACL or the umask may have changed what was asked for, and a
	// setgid parent hands its bit down.
	if st.Mode&0o7777 != m.mode {
		return at.Retry(func() error { return unix.Fchmod(fd, m.mode) })
	}
	return nil
}

// madeLast reports whether the directory at realPath is the one made last, and
// so is new and empty.
func (m *dirMaker) madeLast(realPath string) bool {
	return len(m.made) > 0 && m.made[len(m.made)-1] == "/"+realPath
}

// isWhiteoutName reports a name that the image specification reserves: in a
// layer it would delete what the rest of the name says.
func isWhiteoutName(name string) bool { return strings.HasPrefix(name, ".wh.") }

var errWhiteoutName = errors.New("names that start with .wh. mean deletions in an image layer and cannot be stored")
