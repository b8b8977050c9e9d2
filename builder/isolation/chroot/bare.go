package chroot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// borrowed is what was changed in a root that nothing can be mounted on.
type borrowed struct{ entries []*entry }

// entry is one name in the root with something of ours in its place.
type entry struct {
	dir   int // stays open: the step may move the directory
	name  string
	label string
	times [2]unix.Timespec // of dir
	// aside is where the original lies in dir, "" when there was none.
	aside string
	// original is a copy, should the step have removed it from there.
	original *copied
}

// copied is a small file or link with what is visible of it.
type copied struct {
	st      unix.Stat_t
	content []byte
}

// maxOriginal bounds what is copied of a file in an image.
const maxOriginal = 1 << 20

var devices = [...]struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// borrow puts files and device nodes into the root.
func (b *borrowed) borrow(root int, files map[string][]byte) error {
	for unsafeName, content := range files {
		if err := b.put(root, unsafeName, content); err != nil {
			return fmt.Errorf("file %s: %w", unsafeName, err)
		}
	}
	for _, d := range devices {
		if err := b.device(root, d.name, unix.Mkdev(d.major, d.minor)); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
	}
	return nil
}

func openDir(root int, unsafeName string) (int, error) {
	return unix.Openat2(root, unsafeName, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// enter opens the directory of a name and remembers how it is.
func (b *borrowed) enter(root int, unsafeName string) (*entry, error) {
	dir, err := openDir(root, path.Dir(unsafeName))
	if err != nil {
		return nil, err
	}
	e := &entry{dir: dir, name: path.Base(unsafeName), label: unsafeName}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		unix.Close(dir)
		return nil, err
	}
	e.times = [2]unix.Timespec{st.Atim, st.Mtim}
	return e, nil
}

// put makes a file in the place of what is there.
func (b *borrowed) put(root int, unsafeName string, content []byte) error {
	e, err := b.enter(root, unsafeName)
	if err != nil {
		return err
	}
	var random [8]byte
	rand.Read(random[:]) // never fails (crypto/rand, Go 1.24)
	aside := ".strata-" + hex.EncodeToString(random[:])
	original, err := copyOf(e.dir, e.name)
	if err == nil && original != nil {
		err = unix.Renameat2(e.dir, e.name, e.dir, aside, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		unix.Close(e.dir)
		return err
	}
	b.entries = append(b.entries, e)
	if original != nil {
		e.aside, e.original = aside, original
	}
	fd, err := unix.Openat(e.dir, e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), unsafeName)
	defer f.Close()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	_, err = f.Write(content)
	return err
}

// device makes a node unless there is something already. Where there is no
// /dev, or the kernel does not let us, the step does without.
func (b *borrowed) device(root int, name string, dev uint64) error {
	e, err := b.enter(root, "/dev/"+name)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	err = unix.Mknodat(e.dir, name, unix.S_IFCHR|0o666, int(dev))
	if err != nil {
		unix.Close(e.dir)
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
			return nil
		}
		return err
	}
	b.entries = append(b.entries, e)
	return unix.Fchmodat(e.dir, name, 0o666, 0)
}

// giveBack undoes everything, the last first, and goes on after an error.
func (b *borrowed) giveBack() error {
	var errs []error
	for i := len(b.entries) - 1; i >= 0; i-- {
		e := b.entries[i]
		if err := e.restore(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.label, err))
		}
		unix.Close(e.dir)
	}
	b.entries = nil
	return errors.Join(errs...)
}

func (e *entry) restore() error {
	// Whatever the step has put there stands for our file.
	if err := removeAt(e.dir, e.name); err != nil {
		return err
	}
	if e.aside != "" {
		err := unix.Renameat(e.dir, e.aside, e.dir, e.name)
		if errors.Is(err, unix.ENOENT) {
			err = e.original.write(e.dir, e.name)
		}
		if err != nil {
			return err
		}
	}
	err := unix.UtimesNanoAt(e.dir, ".", e.times[:], 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // the step has removed the directory
	}
	return err
}

// removeAt removes a file, or a directory and what is in it, without
// following links.
func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}

// copyOf returns nil when there is nothing of the name.
func copyOf(dir int, name string) (*copied, error) {
	c := &copied{}
	err := unix.Fstatat(dir, name, &c.st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	switch c.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, b)
		if err != nil {
			return nil, err
		}
		c.content = b[:n]
	case unix.S_IFREG:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		if c.content, err = io.ReadAll(io.LimitReader(f, maxOriginal)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// write makes the file again as well as it can be: content, owner, mode and
// times; it is another inode.
func (c *copied) write(dir int, name string) error {
	switch c.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if err := unix.Symlinkat(string(c.content), dir, name); err != nil {
			return err
		}
	case unix.S_IFREG:
		if c.st.Size > int64(len(c.content)) {
			return fmt.Errorf("the step has removed the original (%d bytes)", c.st.Size)
		}
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		if _, err := f.Write(c.content); err != nil {
			return err
		}
	default:
		return errors.New("the step has removed the original, which is no regular file")
	}
	if err := unix.Fchownat(dir, name, int(c.st.Uid), int(c.st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if c.st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err := unix.Fchmodat(dir, name, c.st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{c.st.Atim, c.st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
