package builder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Options of volumes that are not those of a mount, but of what is done
// before: O puts a layer over the source, whose changes are thrown away with
// the step, and U gives the source, or that layer, to the step's user.
const (
	volumeOverlay = "O"
	volumeChown   = "U"
)

// MountVolumes are volumes without the options that Run sees to itself.
func MountVolumes(list []isolation.Volume) []isolation.Volume {
	list = slices.Clone(list)
	for i := range list {
		list[i].Options = slices.DeleteFunc(slices.Clone(list[i].Options), func(o string) bool { return o == volumeOverlay || o == volumeChown })
	}
	return list
}

// openVolumes does what O and U ask for. What it returns is to be called when
// the step has ended, also after an error.
func (c *Container) openVolumes(ctx context.Context, o *isolation.Options) (func() error, error) {
	var closers []func() error
	done := func() error {
		var err error
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	wishes := o.Volumes
	o.Volumes = MountVolumes(wishes)
	for i, v := range wishes {
		over, chown := slices.Contains(v.Options, volumeOverlay), slices.Contains(v.Options, volumeChown)
		if !over && !chown || v.Tree != nil {
			continue
		}
		dir, err := os.OpenFile(v.Source, unix.O_PATH, 0)
		if err != nil {
			return done, fmt.Errorf("volume %s: source: %w", v.Target, err)
		}
		closers = append(closers, dir.Close)
		if over {
			tree, remove, err := c.discarding(ctx, dir)
			if err != nil {
				return done, fmt.Errorf("volume %s: option O: %w", v.Target, err)
			}
			closers = append(closers, remove, tree.Close)
			o.Volumes[i].Tree, dir = tree, tree
		}
		if chown {
			if err := chownTree(int(dir.Fd()), "", int(o.UID), int(o.GID)); err != nil {
				return done, fmt.Errorf("volume %s: option U: %w", v.Target, err)
			}
		}
	}
	return done, nil
}

// discarding makes a writable layer over a directory of the host's.
func (c *Container) discarding(ctx context.Context, lower *os.File) (*os.File, func() error, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(lower.Fd()), &st); err != nil {
		return nil, nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, nil, fmt.Errorf("%s is not a directory: %w", lower.Name(), define.ErrInvalid)
	}
	_, scratch, err := c.space.Dir(ctx)
	if err != nil {
		return nil, nil, err
	}
	var name [6]byte
	rand.Read(name[:]) // never fails (crypto/rand, Go 1.24)
	return runmount.Discarding(scratch, "volume-"+hex.EncodeToString(name[:]), lower, c.engine.store.UserXattr())
}

// chownTree gives name below dir, and all below it on any mount, to a user.
// Links are changed themselves. name "" is dir.
func chownTree(dir int, name string, uid, gid int) error {
	flags := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := dir, error(nil)
	if name != "" {
		if fd, err = unix.Openat(dir, name, flags, 0); err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: name, Err: err}
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	list, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(list), name)
	names, err := f.Readdirnames(-1)
	defer f.Close()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := chownTree(list, n, uid, gid); err != nil {
			return err
		}
	}
	return nil
}
