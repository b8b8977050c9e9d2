package chroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

const cloneFlags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_NO_AUTOMOUNT

// file avoids the interface that is not nil though the pointer is.
func file(f *os.File) io.ReadWriter {
	if f == nil {
		return nil
	}
	return f
}

func isBind(options []string, kind string) bool {
	return kind == "bind" || slices.Contains(options, "bind") || slices.Contains(options, "rbind")
}

// cloneTree returns a detached copy of the mount that f is in, from f down.
// Before Linux 6.15 a detached mount could not be cloned: there it is moved
// itself, which leaves f usable for everything but another step.
func cloneTree(f *os.File) (*os.File, error) {
	tree, err := openTree(int(f.Fd()), "", cloneFlags|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		return duplicate(f)
	}
	return tree, err
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func openTree(dir int, name string, flags uint) (*os.File, error) {
	for {
		fd, err := unix.OpenTree(dir, name, flags)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

// cloneVolume returns the tree of a bind mount with its attributes set.
func cloneVolume(m specs.Mount, given *os.File) (tree *os.File, err error) {
	if given != nil {
		tree, err = cloneTree(given)
	} else {
		tree, err = openTree(unix.AT_FDCWD, m.Source, isolation.CloneFlags(m.Options))
		err = isolation.ExplainClone(err, m)
	}
	if err == nil {
		err = setAttributes(tree, attributes(m.Options))
	}
	if err == nil {
		err = isolation.Propagate(int(tree.Fd()), m.Options)
	}
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", m.Destination, err)
	}
	return tree, nil
}

// attributes translates the mount options that are attributes of a mount;
// the others belong to the file system.
func attributes(options []string) (set uint64) {
	for _, o := range options {
		switch o {
		case "ro", "rro":
			set |= unix.MOUNT_ATTR_RDONLY
		case "nosuid":
			set |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			set |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			set |= unix.MOUNT_ATTR_NOEXEC
		}
	}
	return set
}

// setsAttributes reports whether the kernel can set the attributes of a mount
// (mount_setattr(2), Linux 5.12), without which nothing is mounted.
var setsAttributes = sync.OnceValue(func() bool {
	return !errors.Is(unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}), unix.ENOSYS)
})

// noMounts is why a step has none.
func noMounts() string {
	if !setsAttributes() {
		return "this kernel is too old for mounts of steps (Linux 5.12 has them)"
	}
	return "this host allows no mounts (CAP_SYS_ADMIN would)"
}

// setAttributes sets attributes on a detached tree, all of it, and takes it
// out of its peer groups.
func setAttributes(tree *os.File, set uint64) error {
	err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: set, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("attributes of the mount (needs Linux 5.12): %w", err)
	}
	return nil
}
