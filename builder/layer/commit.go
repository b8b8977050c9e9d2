package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"
)

// commit takes one frozen layer into the store, in the background. Reading
// goes on for several layers at once; entering the store is in the parents'
// order and one at a time.
type commit struct {
	space   *Space
	layer   *Layer
	scratch *overlay.Scratch
	options FreezeOptions
}

func (c *commit) run(ctx context.Context) {
	defer close(c.layer.done)
	c.layer.info, c.layer.err = c.commit(ctx)
	// The work directory is of no use any more; the upper is a layer now, or
	// stays as a lower directory until the space closes.
	_ = c.scratch.RemoveWork()
}

func (c *commit) commit(ctx context.Context) (Info, error) {
	s, l := c.space, c.layer
	sum, err := c.digest(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("reading the new layer: %w", err)
	}
	defer sum.Close()
	parent, err := l.parent.Wait(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("the layer below: %w", err)
	}
	info := parent.child(sum.Digest, sum.Size)
	unlock, err := s.st.Lock(ctx)
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	_, err = s.st.Raw().Layer(string(info.ID))
	if err == nil {
		// The same layer was made before, and this one is not needed; but the
		// image that it was made for may go away at any time.
		if err = s.ws.Pin(ctx, info.ID); !errors.Is(err, define.ErrNotFound) {
			return info, err
		}
		err = storage.ErrLayerUnknown // it has just gone
	}
	if !errors.Is(err, storage.ErrLayerUnknown) {
		return Info{}, fmt.Errorf("layer %s: %w", info.ID, err)
	}
	return info, c.adopt(ctx, parent, info, sum)
}

// digest reads the upper once.
func (c *commit) digest(ctx context.Context) (*summary, error) {
	s := c.space
	select {
	case s.digests <- struct{}{}:
		defer func() { <-s.digests }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t, err := c.stream(ctx)
	if err != nil {
		return nil, err
	}
	defer t.closeLinks()
	return t.digest(ctx)
}

func (c *commit) stream(ctx context.Context) (*tarStream, error) {
	s := c.space
	t := &tarStream{
		root: c.layer.dirs[0], userXattr: s.st.UserXattr(),
		timestamp: c.options.Timestamp, clamp: c.options.Clamp,
	}
	if c.layer.parent != nil {
		t.lower = func() (*os.File, error) { return s.mountReadOnly(ctx, c.layer.parent) }
	}
	if _, dir, err := s.ws.Dir(ctx); err == nil {
		t.spill = dir
	}
	return t, t.openLinks()
}

// adopt renames the upper directory into the store.
func (c *commit) adopt(ctx context.Context, parent, info Info, sum *summary) error {
	s := c.space
	dir, _, err := s.ws.Dir(ctx)
	if err != nil {
		return err
	}
	fi, err := c.layer.dirs[0].Stat()
	if err != nil {
		return err
	}
	mode := fi.Mode()
	split := sum.TarSplit
	sum.TarSplit = nil // closed by the store
	_, err = s.st.Raw().ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID:          string(info.ID),
		ParentLayer: string(parent.ID),
		DiffOutput: &drivers.DriverWithDifferOutput{
			Target:             filepath.Join(dir, c.scratch.UpperName()),
			Size:               info.Size,
			UncompressedDigest: info.DiffID,
			UIDs:               sum.UIDs,
			GIDs:               sum.GIDs,
			TarSplit:           split,
			RootDirMode:        &mode,
		},
		DiffOptions: &drivers.ApplyDiffWithDifferOpts{},
	})
	if errors.Is(err, unix.EXDEV) || errors.Is(err, storage.ErrNotSupported) {
		return c.unpack(ctx, parent, info)
	}
	if err != nil {
		return fmt.Errorf("taking layer %s into the store: %w", info.ID, store.Explain(s.st.Raw().GraphRoot(), err))
	}
	return c.keepLinks(dir, info)
}

// unpack is adopt for a store that turns out not to take directories: the
// upper is read again and unpacked as a layer.
func (c *commit) unpack(ctx context.Context, parent, info Info) error {
	r, w := io.Pipe()
	go func() {
		t, err := c.stream(ctx)
		if err != nil {
			w.CloseWithError(err)
			return
		}
		defer t.closeLinks()
		t.out = w
		sum, err := t.digest(ctx)
		if err == nil {
			sum.Close()
			if sum.Digest != info.DiffID {
				err = fmt.Errorf("layer %s changed between two readings", info.ID)
			}
		}
		w.CloseWithError(err)
	}()
	defer r.Close()
	return c.space.put(ctx, parent.ID, info, r)
}
