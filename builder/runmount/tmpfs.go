package runmount

import (
	"fmt"
	"os"
	"strconv"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// Tmpfs makes a file system in memory, whose root has the mode, of at most size
// bytes; 0 is the kernel's default, half of the memory.
func Tmpfs(size int64, mode uint32) (*os.File, error) {
	options := [][2]string{{"mode", strconv.FormatUint(uint64(mode&0o7777), 8)}}
	if size > 0 {
		options = append(options, [2]string{"size", strconv.FormatInt(size, 10)})
	}
	return newTmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options, false)
}

// newTmpfs makes a detached tmpfs; noswap keeps it out of swap where the
// kernel (6.4) and our privileges allow it.
func newTmpfs(attr int, options [][2]string, noswap bool) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, explain("make a tmpfs", err) }
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fs)
	for _, kv := range options {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return fail(fmt.Errorf("%s=%s: %w", kv[0], kv[1], err))
		}
	}
	if noswap {
		_ = unix.FsconfigSetFlag(fs, "noswap")
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fail(err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return fail(err)
	}
	return os.NewFile(uintptr(fd), "tmpfs"), nil
}

// FileAttr is what a step sees of a file or directory that is made for it.
type FileAttr struct {
	Mode     uint32 // permission, setuid, setgid and sticky bits
	UID, GID int
	// SingleID has the owner remembered (copier.OwnerXattr), since only one id is
	// mapped.
	SingleID bool
}

func (a FileAttr) apply(at int, name string) error {
	if (a.UID != 0 || a.GID != 0) && a.SingleID {
		if err := a.remember(at, name); err != nil {
			return err
		}
	} else if a.UID != 0 || a.GID != 0 {
		if err := unix.Fchownat(at, name, a.UID, a.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give it to %d:%d: %w", a.UID, a.GID, err)
		}
	}
	return unix.Fchmodat(at, name, a.Mode&0o7777, 0) // after chown, which clears bits
}

func (a FileAttr) remember(at int, name string) error {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil // a socket is the one id's, who can use it
	}
	if err := copier.Note(fd, copier.Owner{UID: a.UID, GID: a.GID}); err != nil {
		return fmt.Errorf("note that it is %d:%d's: %w", a.UID, a.GID, err)
	}
	return nil
}

// Secret makes a tree that is one file with the content. It lies in memory
// and is never written to a disk, but may be swapped where the kernel does not
// allow to forbid it.
func Secret(content []byte, a FileAttr) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, fmt.Errorf("make the secret's file: %w", err) }
	root, err := newTmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, [][2]string{{"mode", "0700"}}, true)
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	const name = "secret"
	fd, err := unix.Openat(int(root.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(content)
	f.Close()
	if err == nil {
		err = a.apply(int(root.Fd()), name)
	}
	if err != nil {
		return fail(err)
	}
	if fd, err = unix.Openat(int(root.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return fail(err)
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	return Tree(root, sub)
}
