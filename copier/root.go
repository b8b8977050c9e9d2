package copier

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/copier/internal/resolve"
	"golang.org/x/sys/unix"
)

// Root is a directory that names are resolved in, held by an O_PATH
// descriptor. It is safe for concurrent use.
type Root struct {
	dir *os.File
	// walk resolves without openat2(2); tests run both ways.
	walk bool
	// links is set where owners are remembered; see RememberOwners.
	links func(name string) (Owner, bool)
}

// OpenRoot opens the directory at path, which is trusted, as a Root.
func OpenRoot(path string) (*Root, error) {
	fd, err := at.Open(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fail("open root directory", path, err)
	}
	return &Root{dir: os.NewFile(uintptr(fd), path)}, nil
}

// NewRoot makes a Root of an open directory (O_PATH is enough; a detached
// mount's descriptor is one). It duplicates the descriptor; the caller keeps
// and closes its own.
func NewRoot(dir *os.File) (*Root, error) {
	fd, err := at.Dup(int(dir.Fd()))
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, fail("duplicate the descriptor of", dir.Name(), err)
	}
	var st unix.Stat_t
	if err = at.Stat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		at.Close(fd)
		return nil, fail("use as root", dir.Name(), err)
	}
	return &Root{dir: os.NewFile(uintptr(fd), dir.Name())}, nil
}

// Close releases the descriptor. The Root must not be in use.
func (r *Root) Close() error { return r.dir.Close() }

// File returns the descriptor, which stays the Root's.
func (r *Root) File() *os.File { return r.dir }

func (r *Root) resolver() resolve.Resolver {
	return resolve.Resolver{Dir: int(r.dir.Fd()), Walk: r.walk}
}

// Open opens the object that unsafePath names below r, following symbolic
// links inside r unless flags hold O_NOFOLLOW; flags are those of open(2)
// without the ones that create. FIFOs, sockets and devices are refused unless
// flags has O_PATH.
func (r *Root) Open(unsafePath string, flags int) (*os.File, error) {
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		return nil, fail("open", unsafePath, errors.New("flags that create are not allowed"))
	}
	// O_PATH first: looking at a FIFO or a device must not wake it.
	keep := flags & (unix.O_NOFOLLOW | unix.O_DIRECTORY)
	fd, err := r.resolver().Open(unsafePath, unix.O_PATH|keep)
	if err != nil {
		return nil, fail("open", unsafePath, err)
	}
	if flags&unix.O_PATH == 0 {
		opened, err := r.reopen(fd, unsafePath, flags)
		at.Close(fd)
		if err != nil {
			return nil, fail("open", unsafePath, err)
		}
		fd = opened
	}
	return os.NewFile(uintptr(fd), unsafePath), nil
}

// errSpecial refuses what has no content to read.
var errSpecial = errors.New("it is a FIFO, a socket or a device, which are never opened")

// reopen opens the regular file or directory behind the O_PATH descriptor fd,
// which unsafePath led to.
func (r *Root) reopen(fd int, unsafePath string, flags int) (int, error) {
	var want, got unix.Stat_t
	if err := at.Stat(fd, &want); err != nil {
		return -1, err
	}
	switch want.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return at.Open(fd, ".", flags&^unix.O_NOFOLLOW, 0)
	case unix.S_IFREG:
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	default:
		return -1, errSpecial
	}
	opened, err := at.Open(unix.AT_FDCWD, at.ProcPath(fd), flags&^unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) || err == unix.ENOTDIR {
		// No usable /proc (a foreign pid namespace, say): resolve again, in a
		// way that cannot block, and check that it led to the same file.
		opened, err = r.resolver().Open(unsafePath, flags|unix.O_NONBLOCK|unix.O_NOCTTY)
	}
	if err != nil {
		return -1, err
	}
	if err := at.Stat(opened, &got); err != nil || got.Ino != want.Ino || got.Dev != want.Dev {
		at.Close(opened)
		return -1, errors.New("it was replaced while being opened")
	}
	return opened, nil
}

// ReadFile reads a regular file of at most limit bytes; a larger one is an
// error that names it.
func (r *Root) ReadFile(unsafePath string, limit int64) ([]byte, error) {
	f, err := r.Open(unsafePath, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fail("read", unsafePath, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fail("read", unsafePath, errors.New("it is not a regular file"))
	}
	if st.Size() > limit {
		return nil, fail("read", unsafePath, tooLarge(st.Size(), limit))
	}
	// The size of a file in procfs or of one that grows is not its length.
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fail("read", unsafePath, err)
	}
	if int64(len(b)) > limit {
		return nil, fail("read", unsafePath, tooLarge(int64(len(b)), limit))
	}
	return b, nil
}

func tooLarge(size, limit int64) error {
	return fmt.Errorf("its %d bytes are more than the %d that are read of it", size, limit)
}

// fail says what could not be done to which path. The path is quoted when it
// could disturb a terminal or a log.
func fail(op, unsafePath string, err error) error {
	switch {
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%s %s: %w (raise the limit on open files, ulimit -n)", op, show(unsafePath), err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%s %s: %w (neither blocks nor inodes may run out: df, df -i)", op, show(unsafePath), err)
	}
	return fmt.Errorf("%s %s: %w", op, show(unsafePath), err)
}

// show renders a hostile name for a message: as it is when it is plain,
// quoted otherwise.
func show(unsafePath string) string {
	const longest = 512
	if len(unsafePath) > longest {
		unsafePath = unsafePath[:longest/2] + "..." + unsafePath[len(unsafePath)-longest/2:]
	}
	q := strconv.Quote(unsafePath)
	if len(q) == len(unsafePath)+2 && unsafePath != "" {
		return unsafePath
	}
	return q
}
