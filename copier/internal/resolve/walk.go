package resolve

import (
	"slices"
	"strings"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// walker is a position in a root: the descriptors of the directories from the
// root down to it, and the components still to be taken.
type walker struct {
	fds     []int    // fds[0] is the root and not ours to close
	names   []string // of fds[1:]
	todo    []string // in reverse order
	links   int
	mustDir bool // a slash follows the last component
}

func (r Resolver) walker(unsafePath string) (*walker, error) {
	if strings.IndexByte(unsafePath, 0) >= 0 {
		return nil, unix.EINVAL
	}
	w := &walker{fds: []int{r.Dir}}
	w.push(unsafePath)
	return w, nil
}

// components splits a path; "." and empty ones are left out.
func components(p string) []string {
	parts := strings.Split(p, "/")
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" || s == "." })
}

// push puts a path, or the target of a link, before what is still to do.
func (w *walker) push(p string) {
	if len(w.todo) == 0 {
		w.mustDir = w.mustDir || strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "."
	}
	parts := components(p)
	slices.Reverse(parts)
	w.todo = append(w.todo, parts...)
}

func (w *walker) top() int { return w.fds[len(w.fds)-1] }

// path is the real path of name in the directory that the walk has reached.
func (w *walker) path(name string) string {
	p := strings.Join(w.names, "/")
	switch {
	case name == "." && p == "":
		return "."
	case name == ".":
		return p
	case p == "":
		return name
	}
	return p + "/" + name
}

func (w *walker) up() {
	// ".." at the root is the root, as in a chroot.
	if n := len(w.fds) - 1; n > 0 {
		at.Close(w.fds[n])
		w.fds, w.names = w.fds[:n], w.names[:n-1]
	}
}

func (w *walker) reset() {
	for len(w.fds) > 1 {
		w.up()
	}
}

func (w *walker) close() { w.reset() }

// parents takes all components but the last and returns that; "." when none
// is left. Missing directories are made with mk if that is not nil.
func (w *walker) parents(mk Make) (string, error) {
	for {
		n := len(w.todo) - 1
		if n < 0 {
			return ".", nil
		}
		name := w.todo[n]
		w.todo = w.todo[:n]
		if name == ".." {
			w.up()
			continue
		}
		if n == 0 {
			if name == "." {
				return ".", nil
			}
			return name, nil
		}
		if err := w.enter(name, mk); err != nil {
			return "", err
		}
	}
}

func (w *walker) enter(name string, mk Make) error {
	// Whoever removes what was just made, over and over, gets an error and
	// not a loop.
	for tries := 0; ; tries++ {
		fd, mode, err := openPath(w.top(), name)
		if err == unix.ENOENT && mk != nil && tries < 16 {
			if err := mk(w.top(), name, w.path(name)); err != nil && err != unix.EEXIST {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		switch mode {
		case unix.S_IFDIR:
			w.fds, w.names = append(w.fds, fd), append(w.names, name)
			return nil
		case unix.S_IFLNK:
			err = w.expand(fd)
		default:
			err = unix.ENOTDIR
		}
		at.Close(fd)
		return err
	}
}

// expand replaces the link behind fd, found in the top directory, by its
// target.
func (w *walker) expand(fd int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	target, err := at.Readlink(fd, "")
	if err != nil {
		return err
	}
	if target == "" {
		return unix.ENOENT
	}
	if isMagic(fd, target) {
		return unix.ELOOP
	}
	if target[0] == '/' {
		w.reset()
	}
	w.push(target)
	return nil
}

// isMagic reports whether a link leads to an object and not to a name
// (proc(5): /proc/pid/{fd,cwd,exe,root,ns,...}). Their texts are absolute or
// of the form type:[inode]; the plain links of procfs are neither. Following
// the text would stay inside the root, but openat2(2) refuses them, and both
// ways must agree.
func isMagic(fd int, target string) bool {
	var fs unix.Statfs_t
	if at.Retry(func() error { return unix.Fstatfs(fd, &fs) }) != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return false
	}
	return target[0] == '/' || strings.Contains(target, ":[") || strings.HasPrefix(target, "anon_inode:")
}

// openPath opens name with O_PATH and tells its type.
func openPath(dir int, name string) (int, uint32, error) {
	fd, err := at.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		at.Close(fd)
		return -1, 0, err
	}
	return fd, st.Mode & unix.S_IFMT, nil
}

// walkOpen is Open without openat2(2).
func (r Resolver) walkOpen(unsafePath string, flags int) (int, error) {
	w, err := r.walker(unsafePath)
	if err != nil {
		return -1, err
	}
	defer w.close()
	for {
		last, err := w.parents(nil)
		if err != nil {
			return -1, err
		}
		if last == "." {
			return at.Open(w.top(), ".", flags&^unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		}
		if w.mustDir {
			flags = flags&^unix.O_NOFOLLOW | unix.O_DIRECTORY
		}
		fd, mode, err := openPath(w.top(), last)
		if err != nil {
			return -1, err
		}
		if mode == unix.S_IFLNK && flags&unix.O_NOFOLLOW == 0 {
			err = w.expand(fd)
			at.Close(fd)
			if err != nil {
				return -1, err
			}
			continue
		}
		at.Close(fd)
		// A link that takes the name's place now makes this fail with ELOOP.
		fd, err = at.Open(w.top(), last, flags|unix.O_NOFOLLOW, 0)
		if err != nil || flags&unix.O_PATH == 0 || flags&unix.O_NOFOLLOW != 0 {
			return fd, err
		}
		var st unix.Stat_t
		if err := at.Stat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			at.Close(fd)
			w.todo = append(w.todo, last)
			if w.links++; w.links > maxLinks || err != nil {
				return -1, unix.ELOOP
			}
			continue
		}
		return fd, nil
	}
}
