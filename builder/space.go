package builder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/layer"
)

// Space is where the containers of one build make their layers, and the
// skeleton of mount points that their steps share.
type Space struct {
	*layer.Space
	// life bounds background work: a step that fails must not end the
	// commits of those before it, an interrupt must.
	life context.Context

	once     sync.Once
	skeleton *os.File
	err      error
}

// NewSpace makes a space; work in the background ends with ctx. The caller
// closes it.
func (e *Engine) NewSpace(ctx context.Context) *Space {
	return &Space{Space: layer.NewSpace(e.store), life: ctx}
}

// containerSpace makes a space for work on one stored container, which is
// locked.
func (e *Engine) containerSpace(ctx context.Context, layerID string) (*Space, error) {
	s, err := layer.NewContainerSpace(e.store, layerID)
	if err != nil {
		return nil, err
	}
	return &Space{Space: s, life: ctx}, nil
}

// Skeleton returns a directory with the usual mount points of steps, made at
// the first call. Shown below a root, it spares the layer their traces.
func (s *Space) Skeleton(ctx context.Context) (*os.File, error) {
	s.once.Do(func() { s.skeleton, s.err = s.makeSkeleton(ctx) })
	return s.skeleton, s.err
}

func (s *Space) makeSkeleton(ctx context.Context) (*os.File, error) {
	scratch, _, err := s.Dir(ctx)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(scratch, "skeleton")
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("mount point skeleton: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("mount point skeleton: %w", err)
	}
	// The mount points of a step without any wish of its own: what others
	// need besides is made in their roots.
	spec, err := isolation.NewSpec(isolation.Options{Args: []string{"true"}, Cwd: "/", Network: isolation.NetworkHost})
	if err == nil {
		err = isolation.Skeleton(dir, spec.Targets())
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// Close releases the space and waits for what goes on in the background.
func (s *Space) Close() error {
	if s.skeleton != nil {
		s.skeleton.Close()
	}
	return s.Space.Close()
}
