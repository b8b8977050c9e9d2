package isolation

import (
	"errors"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// CloneFlags are those of open_tree(2) for a bind mount with these options of
// a Spec: all that is mounted below the source is in it, unless bind is among
// them.
func CloneFlags(options []string) uint {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_NO_AUTOMOUNT)
	if !slices.Contains(options, "bind") {
		flags |= unix.AT_RECURSIVE
	}
	return flags
}

// ExplainClone says what EINVAL of open_tree(2) means for m.
func ExplainClone(err error, m specs.Mount) error {
	if errors.Is(err, unix.EINVAL) && slices.Contains(m.Options, "bind") {
		return fmt.Errorf("%s without what is mounted below it: a user namespace cannot leave out mounts that it was given: %w", m.Source, define.ErrUnsupported)
	}
	return err
}

// Propagate gives a detached tree that is in no peer group one of its own,
// which only the step's mount namespace will have members of, if options have
// shared (its root alone) or rshared.
func Propagate(tree int, options []string) error {
	flags := uint(unix.AT_EMPTY_PATH)
	switch {
	case slices.Contains(options, "rshared"):
		flags |= unix.AT_RECURSIVE
	case slices.Contains(options, "shared"):
	default:
		return nil
	}
	if err := unix.MountSetattr(tree, "", flags, &unix.MountAttr{Propagation: unix.MS_SHARED}); err != nil {
		return fmt.Errorf("make the mount shared: %w", err)
	}
	return nil
}

// Executable takes noexec and nosuid from a step's root, a detached mount that
// only the step will have. A root of the driver vfs has them from the file
// system that the store is on; overlay's has neither. The kernel forbids it
// where a namespace with more rights has mounted that file system: then
// nothing of the root can be executed, which is an error that wraps
// define.ErrUnsupported.
func Executable(tree int) error {
	var st unix.Statfs_t
	if unix.Fstatfs(tree, &st) != nil || st.Flags&(unix.ST_NOEXEC|unix.ST_NOSUID) == 0 {
		return nil
	}
	err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID})
	if err == nil || st.Flags&unix.ST_NOEXEC == 0 {
		return nil
	}
	return fmt.Errorf("the store's file system is mounted noexec, so no program of the image can run (%w): "+
		"choose another with --root: %w", err, define.ErrUnsupported)
}
