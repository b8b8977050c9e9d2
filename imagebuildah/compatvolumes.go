package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// volumes are the paths of the image's volumes whose contents a RUN does not
// change, outer ones first.
func (s *stage) volumes() []string {
	if !s.b.opts.CompatVolumes {
		return nil
	}
	var list []string
	for v := range maps.Keys(s.c.Image.Config.Volumes) {
		if v = path.Clean("/" + v); v != "/" {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// coverVolumes gives a step copies of the volumes' directories. What it
// returns removes them, also after an error.
func (s *stage) coverVolumes(ctx context.Context, r *builder.Run) (done func() error, err error) {
	var closers []func() error
	done = func() error {
		var err error
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c())
		}
		return err
	}
	for _, target := range s.volumes() {
		dir, scratch, err := s.b.space.Dir(ctx)
		if err != nil {
			return done, err
		}
		name := s.b.mountName()
		if err := unix.Mkdirat(int(scratch.Fd()), name, 0o755); err != nil {
			return done, fmt.Errorf("copy of volume %s: %w", target, err)
		}
		closers = append(closers, func() error { return os.RemoveAll(path.Join(dir, name)) })
		copied, err := os.Open(path.Join(dir, name))
		if err != nil {
			return done, fmt.Errorf("copy of volume %s: %w", target, err)
		}
		tree, err := runmount.Tree(nil, copied)
		if err = errors.Join(err, copied.Close()); err != nil {
			return done, fmt.Errorf("copy of volume %s: %w", target, err)
		}
		closers = append(closers, tree.Close)
		r.Mounts = append(r.Mounts, isolation.Volume{Tree: tree, Target: target, Options: []string{builder.VolumeCopyUp}})
	}
	return done, nil
}

// stageImageLabels gives the image of a stage the labels of StageImageLabels.
func (b *build) stageImageLabels(image *stage) {
	for _, kv := range b.opts.StageImageLabels {
		k, v, _ := strings.Cut(kv, "=")
		image.setLabel(k, v)
	}
}

// checkCompat refuses labels without a key.
func checkCompat(o *Options) error {
	for _, kv := range o.StageImageLabels {
		if k, _, _ := strings.Cut(kv, "="); k == "" {
			return fmt.Errorf("label of stages %q: want key=value: %w", kv, define.ErrInvalid)
		}
	}
	return nil
}
