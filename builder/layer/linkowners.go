package layer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// Symbolic links and special files cannot have copier.OwnerXattr. What is
// remembered of those in an upper directory lies in a copier.OwnerLog beside
// it, and goes with the directory when it is copied, squashed or made a layer.

func (t *tarStream) openLinks() (err error) {
	if t.userXattr {
		t.ownerLog, err = copier.OpenOwnerLog(t.root)
	}
	return err
}

func (t *tarStream) closeLinks() {
	if t.ownerLog != nil {
		_ = t.ownerLog.Close() // it was read only
		t.ownerLog = nil
	}
}

// linkOwner gives an entry the owner that is remembered of it.
func (w *walker) linkOwner(f *frame, e *entry) error {
	if w.ownerLog == nil || w.ownerLog.Empty() {
		return nil
	}
	owner, ok, err := linkOwner(w.ownerLog, f.dir.fd, e.base)
	if err != nil {
		return fmt.Errorf("looking at /%s: %w", e.name, err)
	}
	if ok {
		e.uid, e.gid = int64(owner.UID), int64(owner.GID)
	}
	return nil
}

func linkOwner(log *copier.OwnerLog, at int, base string) (owner copier.Owner, ok bool, err error) {
	key, err := linkKey(at, base)
	if err == nil {
		owner, ok = log.Owner(key)
	}
	return owner, ok, err
}

func linkKey(at int, base string) (copier.FileKey, error) {
	fd, err := unix.Openat(at, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return copier.FileKey{}, err
	}
	defer unix.Close(fd)
	return copier.KeyOf(fd)
}

// linkLogs are those of the directory that a merger reads, and of the one
// that it makes.
type linkLogs struct{ from, to *copier.OwnerLog }

func openLinkLogs(from, to *os.File) (*linkLogs, error) {
	l := &linkLogs{}
	var err error
	if l.from, err = copier.OpenOwnerLog(from); err != nil {
		return nil, err
	}
	if l.from.Empty() {
		return nil, l.from.Close()
	}
	if l.to, err = copier.OpenOwnerLog(to); err != nil {
		return nil, errors.Join(err, l.from.Close())
	}
	return l, nil
}

func (l *linkLogs) close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.from.Close(), l.to.Close())
}

// carry notes of the copy, or further name, dst/base what is remembered of
// src/base.
func (l *linkLogs) carry(src, dst int, base string) error {
	if l == nil {
		return nil
	}
	owner, ok, err := linkOwner(l.from, src, base)
	if err != nil || !ok {
		return err
	}
	key, err := linkKey(dst, base)
	if err != nil {
		return err
	}
	return l.to.Note(key, owner)
}

// keepLinks moves the log from the workspace's directory dir to the directory that has become a layer's.
func (c *commit) keepLinks(dir string, info Info) error {
	if !c.space.st.UserXattr() {
		return nil
	}
	home, err := c.space.st.LayerHome(string(info.ID))
	if err != nil {
		return err
	}
	err = os.Rename(filepath.Join(dir, path.Dir(c.scratch.UpperName()), copier.OwnerLogName), filepath.Join(home, copier.OwnerLogName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// lowerLogs are those of directories below uppers, read when one is first
// needed. They do not change any more.
type lowerLogs struct {
	mu   sync.Mutex
	logs map[*os.File]*copier.OwnerLog
}

// of returns a directory's log.
func (l *lowerLogs) of(dir *os.File) (*copier.OwnerLog, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if log := l.logs[dir]; log != nil {
		return log, nil
	}
	log, err := copier.OpenOwnerLog(dir)
	if err != nil {
		return nil, err
	}
	if l.logs == nil {
		l.logs = map[*os.File]*copier.OwnerLog{}
	}
	l.logs[dir] = log
	return log, log.Close() // what it read stays
}

// LinkOwner returns the owner that is remembered of a symbolic link or special
// file that a layer below the upper shows at name, a path below the root. It
// follows no link and never leaves the layers.
func (w *Working) LinkOwner(name string) (copier.Owner, bool) {
	if w.linked {
		return copier.Owner{}, false
	}
	return w.space.linkOwner(w.parent, name)
}

// LinkOwner is Working.LinkOwner of what the view's root shows.
func (v *View) LinkOwner(name string) (copier.Owner, bool) {
	dirs := v.space.lowers(v.top)
	if v.kept != nil && v.kept.upper != nil {
		dirs = append([]*os.File{v.kept.upper}, dirs...)
	}
	return v.space.linkOwnerIn(dirs, name)
}

func (s *Space) linkOwner(top *Layer, name string) (copier.Owner, bool) {
	return s.linkOwnerIn(s.lowers(top), name)
}

func (s *Space) linkOwnerIn(dirs []*os.File, name string) (copier.Owner, bool) {
	for _, dir := range dirs {
		fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			break
		}
		defer unix.Close(fd)
		log, err := s.lowerLogs.of(dir)
		if err != nil || log.Empty() {
			break
		}
		key, err := copier.KeyOf(fd)
		if err != nil {
			break
		}
		return log.Owner(key)
	}
	return copier.Owner{}, false
}
