package runmount

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

const cloneFlags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH | unix.AT_RECURSIVE

// TreeAlone is Tree of what lies in a mount of this process's namespace,
// without what is mounted below it. In a user namespace the kernel does not
// uncover what mounts that came with the namespace hide: an error then.
func TreeAlone(sub *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(sub.Fd()), "", cloneFlags&^unix.AT_RECURSIVE)
	runtime.KeepAlive(sub)
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%s without what is mounted below it: a user namespace cannot leave out mounts that it was given: %w", sub.Name(), define.ErrUnsupported)
	}
	if err != nil {
		return nil, explain("clone the mount of "+sub.Name(), err)
	}
	return os.NewFile(uintptr(fd), sub.Name()), nil
}

// Tree returns a detached mount of sub, a directory or file (O_PATH is
// enough). root is the root of the detached mount that sub lies in, nil when
// it lies in a mount of this process's namespace.
//
// Before Linux 6.15 a detached mount is not cloned; there root itself is used
// up: it stays readable, but gives no second tree.
func Tree(root, sub *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(sub.Fd()), "", cloneFlags)
	if errors.Is(err, unix.EINVAL) && root != nil {
		fd, err = treePrivately(root, sub)
	}
	runtime.KeepAlive(sub)
	if err != nil {
		return nil, explain("clone the mount of "+sub.Name(), err)
	}
	return os.NewFile(uintptr(fd), sub.Name()), nil
}

// treePrivately attaches root in a mount namespace of a thread of its own,
// where sub can be cloned. Namespace and thread end with the goroutine.
func treePrivately(root, sub *os.File) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		fd, err := attachAndClone(int(root.Fd()), int(sub.Fd()))
		done <- result{fd, err}
	}()
	r := <-done
	runtime.KeepAlive(root)
	return r.fd, r.err
}

// attachAndClone mounts over /proc, which is as good as any directory, since
// nobody will see it.
func attachAndClone(root, sub int) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, err
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, err
	}
	return unix.OpenTree(sub, "", cloneFlags)
}
