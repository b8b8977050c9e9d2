package copier

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// RemoveAll removes unsafePath and all below it. What does not exist is no
// error. A symbolic link at its end is removed itself. The root itself cannot
// be removed.
func (r *Root) RemoveAll(unsafePath string) error {
	dir, name, _, err := r.resolver().Parent(unsafePath)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return fail("remove", unsafePath, err)
	}
	defer at.Close(dir)
	if name == "." {
		return fail("remove", unsafePath, errors.New("it is the root itself"))
	}
	if err := removeAt(dir, name); err != nil {
		return fail("remove", unsafePath, err)
	}
	return nil
}

// removeDepth is how many descriptors a removal holds at once; what lies
// deeper is moved up first, so that no tree is too deep.
const removeDepth = 64

var removeSeq atomic.Uint64

// removeAt removes name in dir with all below it.
func removeAt(dir int, name string) error {
	err := unlink(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	if derr := unlink(dir, name, unix.AT_REMOVEDIR); derr == nil || derr == unix.ENOENT {
		return nil
	} else if derr == unix.ENOTDIR {
		return err
	}
	return (&remover{}).tree(dir, name, 0)
}

func unlink(dir int, name string, flags int) error {
	return at.Retry(func() error { return unix.Unlinkat(dir, name, flags) })
}

type remover struct {
	top   int // the topmost directory of the tree, for what is moved up
	moved bool
}

func (m *remover) tree(dir int, name string, depth int) error {
	fd, err := openToEmpty(dir, name)
	if err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	defer at.Close(fd)
	if depth == 0 {
		m.top = fd
	}
	// Somebody may add names while we remove them: a few rounds, not forever.
	for round := 0; ; round++ {
		if depth == 0 {
			m.moved = false
		}
		if err := m.content(fd, depth); err != nil {
			return err
		}
		err := unlink(dir, name, unix.AT_REMOVEDIR)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.ENOTEMPTY && err != unix.EEXIST || round >= 8 {
			return err
		}
		if depth == 0 && m.moved {
			round = 0
		}
	}
}

func (m *remover) content(fd, depth int) error {
	read, err := at.Open(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	entries, err := at.ReadDir(read)
	at.Close(read)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type != unix.S_IFDIR {
			err := unlink(fd, e.Name, 0)
			if err == nil || err == unix.ENOENT {
				continue
			}
			if err != unix.EISDIR && err != unix.EPERM {
				return err
			}
		}
		if err := m.child(fd, e.Name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (m *remover) child(fd int, name string, depth int) error {
	err := unlink(fd, name, unix.AT_REMOVEDIR)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if depth >= removeDepth {
		up := ".removed-" + strconv.FormatUint(removeSeq.Add(1), 36)
		// The next round over the top finds it. Overlay cannot move some
		// directories (EXDEV); then we do go deeper.
		if unix.Renameat2(fd, name, m.top, up, unix.RENAME_NOREPLACE) == nil {
			m.moved = true
			return nil
		}
	}
	return m.tree(fd, name, depth+1)
}

// openToEmpty opens a directory; one that its owner may not search is made
// searchable first, as an unprivileged user needs.
func openToEmpty(dir int, name string) (int, error) {
	const flags = unix.O_DIRECTORY | unix.O_NOFOLLOW
	fd, err := at.Open(dir, name, unix.O_RDONLY|flags, 0)
	if err == nil && unix.Geteuid() == 0 {
		return fd, nil
	}
	var st unix.Stat_t
	if err == nil {
		if serr := at.Stat(fd, &st); serr != nil || st.Mode&0o700 == 0o700 {
			return fd, nil
		}
		_ = unix.Fchmod(fd, 0o700)
		return fd, nil
	}
	if err != unix.EACCES {
		return -1, err
	}
	p, perr := at.Open(dir, name, unix.O_PATH|flags, 0)
	if perr != nil {
		return -1, perr
	}
	defer at.Close(p)
	if at.Chmod(p, 0o700) != nil {
		return -1, err
	}
	return at.Open(p, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
}
