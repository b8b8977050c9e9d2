package copier

import (
	"fmt"
	"path"
	"sync/atomic"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// changed says that a source is not what it was when it was selected,
// digested or opened.
func changed(unsafePath string) error {
	return fmt.Errorf("%s changed while reading: stop what writes to it, or leave it out with the ignore file", show(unsafePath))
}

// sourceReader opens the objects of a Selection.
type sourceReader struct {
	sel *Selection
	// atime is set once O_NOATIME was refused; only owners may use it.
	atime atomic.Bool
	// last is the parent directory of the latest single file: wildcards name
	// many in one.
	last     *sharedFD
	lastPath string
}

// open opens a directory of the source root by its real path.
func (s *sourceReader) open(real string) (int, error) {
	fd, err := s.sel.root.resolver().OpenReal(real, unix.O_RDONLY|unix.O_DIRECTORY)
	return fd, sourceError(real, err)
}

func sourceError(real string, err error) error {
	switch err {
	case nil:
		return nil
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return changed(real)
	}
	return fail("open", real, err)
}

// openSourceDir opens a directory found while selecting.
func openSourceDir(dir int, name, real string) (int, error) {
	fd, err := at.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	return fd, sourceError(real, err)
}

// parent opens the directory that holds a source that is not a directory. The
// descriptor stays the reader's until the next call.
func (s *sourceReader) parent(src *source) (dir *sharedFD, dirPath, base string, err error) {
	dirPath, base = path.Dir(src.real), path.Base(src.real)
	if s.last != nil && s.lastPath == dirPath {
		return s.last, dirPath, base, nil
	}
	s.close()
	fd, err := s.open(dirPath)
	if err != nil {
		return nil, "", "", err
	}
	s.last, s.lastPath = newSharedFD(fd), dirPath
	return s.last, dirPath, base, nil
}

func (s *sourceReader) close() {
	if s.last != nil {
		s.last.release()
		s.last = nil
	}
}

// file opens a regular file for reading. What took its place meanwhile is not
// followed and cannot block: O_NONBLOCK keeps a FIFO from waiting for a
// writer, and the caller checks the type.
func (s *sourceReader) file(dir int, name, real string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	if !s.atime.Load() {
		fd, err := at.Open(dir, name, flags|unix.O_NOATIME, 0)
		if err != unix.EPERM {
			return fd, sourceError(real, err)
		}
		s.atime.Store(true)
	}
	fd, err := at.Open(dir, name, flags, 0)
	return fd, sourceError(real, err)
}

// readFull reads what is left of a file, want bytes when it has not changed, or
// until buf is full.
func readFull(fd int, buf []byte, want int64) (int, error) {
	for done := 0; ; {
		n, err := unix.Read(fd, buf[done:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, err
		}
		done += n
		// Room was left and all that is expected came: that is the end, and
		// saves the call that would return 0.
		if n == 0 || done == len(buf) || int64(done) == want {
			return done, nil
		}
	}
}
