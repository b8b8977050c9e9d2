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
