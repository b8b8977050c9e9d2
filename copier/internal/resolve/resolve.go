package resolve

import (
	"path"
	"strings"
	"sync"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's own limit (MAXSYMLINKS, path_resolution(7)).
const maxLinks = 40

// maxAgain bounds the retries of openat2(2), which returns EAGAIN when a
// rename anywhere on the system raced with a "..". The walk has no such limit.
const maxAgain = 64

// pathMax is the longest path one system call takes, with its final NUL.
const pathMax = 4096

// Resolver resolves below the directory Dir, which may be an O_PATH
// descriptor. It holds no resource of its own.
type Resolver struct {
	Dir int
	// Walk uses the fallback even where openat2(2) works.
	Walk bool
}

var haveOpenat2 = sync.OnceValue(func() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
})

// Open opens what unsafePath names. flags are those of open(2) without
// O_CREAT; a link at the end is followed unless they hold O_NOFOLLOW and the
// path does not end with a slash. Errors are plain errnos.
func (r Resolver) Open(unsafePath string, flags int) (int, error) {
	if strings.IndexByte(unsafePath, 0) >= 0 {
		return -1, unix.EINVAL
	}
	if unsafePath == "" {
		unsafePath = "."
	}
	if r.Walk || !haveOpenat2() || len(unsafePath) >= pathMax {
		return r.walkOpen(unsafePath, flags)
	}
	fd, err := openat2(r.Dir, unsafePath, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err == unix.EAGAIN {
		return r.walkOpen(unsafePath, flags)
	}
	return fd, err
}

// OpenReal opens a path that holds no link and no ".." (one that this package
// returned): a link found on it now is ELOOP, also at its end. Paths of any
// length work.
func (r Resolver) OpenReal(realPath string, flags int) (int, error) {
	if realPath == "" {
		realPath = "."
	}
	if !r.Walk && haveOpenat2() && len(realPath) < pathMax {
		fd, err := openat2(r.Dir, realPath, flags|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if err != unix.EAGAIN {
			return fd, err
		}
	}
	dir, last := path.Split(realPath)
	cur := r.Dir
	for _, name := range components(dir) {
		next, err := at.Open(cur, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if cur != r.Dir {
			at.Close(cur)
		}
		if err != nil {
			return -1, err
		}
		cur = next
	}
	fd, err := at.Open(cur, last, flags|unix.O_NOFOLLOW, 0)
	if cur != r.Dir {
		at.Close(cur)
	}
	if err != nil {
		return fd, err
	}
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		at.Close(fd)
		return -1, unix.ELOOP
	}
	return fd, nil
}

func openat2(dir int, name string, flags int, how uint64) (int, error) {
	h := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: how}
	for again := 0; ; {
		fd, err := unix.Openat2(dir, name, &h)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && again < maxAgain:
			again++
		default:
			return fd, err
		}
	}
}

// Real resolves unsafePath, following a link at its end, and returns an O_PATH
// descriptor of it with its path below the root, free of links, without a
// leading slash; "." is the root.
func (r Resolver) Real(unsafePath string) (fd int, realPath string, err error) {
	w, err := r.walker(unsafePath)
	if err != nil {
		return -1, "", err
	}
	defer w.close()
	for {
		last, err := w.parents(nil)
		if err != nil {
			return -1, "", err
		}
		if last == "." {
			fd, err := at.Open(w.top(), ".", unix.O_PATH|unix.O_DIRECTORY, 0)
			return fd, w.path("."), err
		}
		fd, mode, err := openPath(w.top(), last)
		if err != nil {
			return -1, "", err
		}
		if mode != unix.S_IFLNK {
			if w.mustDir && mode != unix.S_IFDIR {
				at.Close(fd)
				return -1, "", unix.ENOTDIR
			}
			return fd, w.path(last), nil
		}
		err = w.expand(fd)
		at.Close(fd)
		if err != nil {
			return -1, "", err
		}
	}
}

// Parent resolves all but the last component of unsafePath and returns an
// O_PATH descriptor of the directory that holds it, the last name, and the
// directory's real path. The name is "." when the path is the root. Slashes
// at the end are ignored.
func (r Resolver) Parent(unsafePath string) (dir int, name, realDir string, err error) {
	w, err := r.walker(unsafePath)
	if err != nil {
		return -1, "", "", err
	}
	defer w.close()
	last, err := w.parents(nil)
	if err != nil {
		return -1, "", "", err
	}
	if last == "." && len(w.names) > 0 {
		// The path ended in "." or "..": its name is the walk's last step.
		last = w.names[len(w.names)-1]
		w.up()
	}
	dir, err = at.Open(w.top(), ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	return dir, last, w.path("."), err
}

// Make creates the directory name in parent; realPath is its path below the
// root. EEXIST from it is no error: somebody else was quicker.
type Make func(parent int, name, realPath string) error

// MkdirAll resolves unsafePath to a directory and calls mk for each component
// that is missing, also where a dangling link leads. It returns a readable
// descriptor and the real path.
func (r Resolver) MkdirAll(unsafePath string, mk Make) (fd int, realPath string, err error) {
	w, err := r.walker(unsafePath)
	if err != nil {
		return -1, "", err
	}
	defer w.close()
	for {
		last, err := w.parents(mk)
		if err != nil {
			return -1, "", err
		}
		if last == "." {
			fd, err = at.Open(w.top(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			return fd, w.path("."), err
		}
		w.todo = append(w.todo, ".", last)
	}
}

// Target resolves unsafePath to the place where an object can be made or
// replaced: links are followed, also at the end and also dangling ones, and
// missing directories above it are made with mk. The descriptor of the
// directory is readable. The name is "." when the path is the root.
func (r Resolver) Target(unsafePath string, mk Make) (dir int, name, realDir string, err error) {
	w, err := r.walker(unsafePath)
	if err != nil {
		return -1, "", "", err
	}
	defer w.close()
	for {
		last, err := w.parents(mk)
		if err != nil {
			return -1, "", "", err
		}
		if last != "." {
			fd, mode, err := openPath(w.top(), last)
			if err == nil {
				if mode == unix.S_IFLNK {
					err = w.expand(fd)
					at.Close(fd)
					if err != nil {
						return -1, "", "", err
					}
					continue
				}
				at.Close(fd)
			} else if err != unix.ENOENT {
				return -1, "", "", err
			}
		} else if len(w.names) > 0 {
			last = w.names[len(w.names)-1]
			w.up()
		}
		dir, err = at.Open(w.top(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		return dir, last, w.path("."), err
	}
}
