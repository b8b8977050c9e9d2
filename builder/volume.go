package builder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Options of volumes that are not those of a mount, but of what is done
// before.
const (
	// VolumeOverlay puts a layer over the source, whose changes are thrown
	// away with the step.
	VolumeOverlay = "O"
	// VolumeChown gives the source, that layer or the tree to the step's user.
	VolumeChown = "U"
	// VolumeShared and VolumePrivate give it an SELinux label, where SELinux
	// is on.
	VolumeShared  = "z"
	VolumePrivate = "Z"
	// VolumeCopyUp copies what the step's root has at the target into the
	// tree, a tmpfs, with the directory's owner and mode; VolumeCopyUpMode
	// leaves the tree's root its mode.
	VolumeCopyUp     = "tmpcopyup"
	VolumeCopyUpMode = "tmpcopyup-keep-mode"
)

// volumeOption reports an option that Run sees to itself.
func volumeOption(o string) bool {
	switch o {
	case VolumeOverlay, VolumeChown, VolumeShared, VolumePrivate, VolumeCopyUp, VolumeCopyUpMode:
		return true
	}
	return false
}

// MountVolumes are volumes without the options that Run sees to itself.
func MountVolumes(list []isolation.Volume) []isolation.Volume {
	list = slices.Clone(list)
	for i := range list {
		list[i].Options = slices.DeleteFunc(slices.Clone(list[i].Options), volumeOption)
	}
	return list
}

// openVolumes does what the options ask for that Run sees to itself; root is
// the step's. What it returns is to be called when the step has ended, also
// after an error.
func (c *Container) openVolumes(ctx context.Context, root *os.File, o *isolation.Options, user isolation.Identity) (func() error, error) {
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
		if !slices.ContainsFunc(v.Options, volumeOption) {
			continue
		}
		w := &volumeWork{c: c, v: &o.Volumes[i], options: v.Options, root: root, uid: int(user.UID), gid: int(user.GID)}
		if v.Tree == nil || v.Mapped {
			// Others are mapped later on.
			uid, _ := o.IDMap.UserOutside(user.UID)
			gid, _ := o.IDMap.GroupOutside(user.GID)
			w.uid, w.gid = int(uid), int(gid)
		}
		err := w.open(ctx)
		closers = append(closers, w.closers...)
		if err != nil {
			return done, fmt.Errorf("volume %s: %w", v.Target, err)
		}
	}
	for i, v := range wishes {
		if o.Volumes[i].Tree == nil || !v.Own && !slices.Contains(v.Options, VolumeOverlay) {
			continue
		}
		if _, err := isolation.MakeTargets(o.Volumes[i].Tree, innerTargets(o.Volumes, v.Target)); err != nil {
			return done, fmt.Errorf("volume %s: %w", v.Target, err)
		}
	}
	return done, nil
}

// innerTargets are the mount points of volumes right below another one's
// target, relative to that, which can be made where it is a tree of ours.
func innerTargets(volumes []isolation.Volume, outer string) []isolation.Target {
	var targets []isolation.Target
	for _, v := range volumes {
		inner, ok := strings.CutPrefix(path.Clean(v.Target), path.Clean(outer)+"/")
		between := func(o isolation.Volume) bool {
			t := path.Clean(o.Target)
			return strings.HasPrefix(t, path.Clean(outer)+"/") && strings.HasPrefix(path.Clean(v.Target), t+"/")
		}
		if !ok || slices.ContainsFunc(volumes, between) {
			continue
		}
		var st unix.Stat_t
		var err error
		if v.Tree != nil {
			err = unix.Fstat(int(v.Tree.Fd()), &st)
		} else {
			err = unix.Stat(v.Source, &st)
		}
		targets = append(targets, isolation.Target{Path: "/" + inner, Dir: err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR})
	}
	slices.SortFunc(targets, func(a, b isolation.Target) int { return strings.Compare(a.Path, b.Path) })
	return targets
}

// volumeWork is what is done to one volume before it is mounted.
type volumeWork struct {
	c        *Container
	v        *isolation.Volume
	options  []string
	root     *os.File
	uid, gid int
	closers  []func() error
}

func (w *volumeWork) open(ctx context.Context) error {
	has := func(o string) bool { return slices.Contains(w.options, o) }
	dir := w.v.Tree
	if dir == nil {
		var err error
		if dir, err = os.OpenFile(w.v.Source, unix.O_PATH, 0); err != nil {
			return fmt.Errorf("source: %w", err)
		}
		w.closers = append(w.closers, dir.Close)
		if has(VolumeOverlay) {
			tree, remove, err := w.c.discarding(ctx, dir)
			if err != nil {
				return fmt.Errorf("option O: %w", err)
			}
			w.closers = append(w.closers, remove, tree.Close)
			w.v.Tree, dir = tree, tree
		}
	}
	if has(VolumeCopyUp) || has(VolumeCopyUpMode) {
		if w.v.Tree == nil {
			return fmt.Errorf("option tmpcopyup: is for tmpfs mounts: %w", define.ErrInvalid)
		}
		if err := runmount.CopyUp(ctx, w.root, w.v.Target, dir, has(VolumeCopyUpMode), w.c.engine.opts.SingleID); err != nil {
			return fmt.Errorf("option tmpcopyup: %w", err)
		}
	}
	if has(VolumeChown) {
		if err := w.chown(dir); err != nil {
			return fmt.Errorf("option U: %w", err)
		}
	}
	// A layer that is thrown away needs no label: nobody else will see it.
	if (has(VolumeShared) || has(VolumePrivate)) && !has(VolumeOverlay) && runmount.SELinux() {
		if err := runmount.Relabel(dir, has(VolumePrivate)); err != nil {
			return fmt.Errorf("SELinux label: %w", err)
		}
	}
	return nil
}

// chown gives the volume to the step's user. Where one id is mapped it is
// noted of files of ours; the host's are the one id's, whoever it is told to
// be.
func (w *volumeWork) chown(dir *os.File) error {
	if !w.c.engine.opts.SingleID {
		return runmount.Chown(dir, w.uid, w.gid)
	}
	owner := copier.Owner{}
	if w.v.Tree != nil {
		owner = copier.Owner{UID: w.uid, GID: w.gid}
	}
	return runmount.Remember(dir, owner)
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
	return runmount.Discarding(scratch, "volume-"+hex.EncodeToString(name[:]), lower, c.engine.store.UserXattr(), nil)
}
