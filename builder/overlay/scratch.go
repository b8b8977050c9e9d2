package overlay

import (
	"fmt"
	"os"

	"github.com/stratabuild/strata/builder/store"
	"golang.org/x/sys/unix"
)

// Attr is what the root of a new upper directory looks like; the merged root
// takes it from there.
type Attr struct {
	Mode     uint32 // permission, setuid, setgid and sticky bits
	UID, GID int
}

// Scratch is the directories of one writable mount, below a directory of
// their own that nobody else can enter.
type Scratch struct {
	parent *os.File
	name   string
	// Upper and Work are O_PATH descriptors.
	Upper, Work *os.File
}

// NewScratch makes the directories name, name/upper and name/work below
// parent, which must stay open until RemoveAll.
func NewScratch(parent *os.File, name string, a Attr) (*Scratch, error) {
	at := int(parent.Fd())
	fail := func(err error) (*Scratch, error) {
		_, _ = store.RemoveTree(parent, name)
		return nil, fmt.Errorf("making the scratch directory %s: %w", name, store.Explain(parent.Name(), err))
	}
	for _, d := range [...]string{"", "/upper", "/work"} {
		if err := unix.Mkdirat(at, name+d, 0o700); err != nil {
			return fail(err)
		}
	}
	s := &Scratch{parent: parent, name: name}
	var err error
	if s.Upper, err = openPath(at, name+"/upper"); err != nil {
		return fail(err)
	}
	if s.Work, err = openPath(at, name+"/work"); err != nil {
		s.Close()
		return fail(err)
	}
	if a.UID != 0 || a.GID != 0 {
		if err := unix.Fchownat(at, name+"/upper", a.UID, a.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			s.Close()
			return fail(err)
		}
	}
	if err := unix.Fchmodat(at, name+"/upper", a.Mode, 0); err != nil { // free of the umask
		s.Close()
		return fail(err)
	}
	// The time of the root is in no tar stream, but directories that are made
	// without a time of their own take it over from the one above: it must not
	// be the time of the build.
	if err := unix.UtimesNanoAt(at, name+"/upper", []unix.Timespec{{}, {}}, 0); err != nil {
		s.Close()
		return fail(err)
	}
	return s, nil
}

// Around makes the directories name and name/work below parent for a writable
// mount of an upper directory that is kept elsewhere, on the same mount as
// parent. It takes upper over: Close closes it, RemoveAll leaves the directory.
func Around(parent *os.File, name string, upper *os.File) (*Scratch, error) {
	at := int(parent.Fd())
	s := &Scratch{parent: parent, name: name}
	var err error
	for _, d := range [...]string{"", "/work"} {
		if err = unix.Mkdirat(at, name+d, 0o700); err != nil {
			break
		}
	}
	if err == nil {
		s.Work, err = openPath(at, name+"/work")
	}
	if err != nil {
		_, _ = store.RemoveTree(parent, name)
		return nil, fmt.Errorf("making the work directory %s: %w", name, store.Explain(parent.Name(), err))
	}
	s.Upper = upper
	return s, nil
}

// UpperName returns the upper directory's path below parent's.
func (s *Scratch) UpperName() string { return s.name + "/upper" }

// Close closes the descriptors.
func (s *Scratch) Close() {
	for _, f := range []**os.File{&s.Upper, &s.Work} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// RemoveWork removes the work directory, which is of no use to a second mount
// once a volatile one has had it. It closes Work.
func (s *Scratch) RemoveWork() error {
	if s.Work != nil {
		s.Work.Close()
		s.Work = nil
	}
	_, err := store.RemoveTree(s.parent, s.name+"/work")
	return err
}

// RenewWork makes an empty work directory in the place of one that a mount
// has used, for another mount of the same upper directory.
func (s *Scratch) RenewWork() error {
	if err := s.RemoveWork(); err != nil {
		return err
	}
	at := int(s.parent.Fd())
	err := unix.Mkdirat(at, s.name+"/work", 0o700)
	if err == nil {
		s.Work, err = openPath(at, s.name+"/work")
	}
	if err != nil {
		return fmt.Errorf("making the work directory %s: %w", s.name, store.Explain(s.parent.Name(), err))
	}
	return nil
}

// RemoveAll removes what is left of the directories.
func (s *Scratch) RemoveAll() error {
	_, err := store.RemoveTree(s.parent, s.name)
	return err
}

func openPath(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
