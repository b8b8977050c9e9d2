package layer

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
)

// commit takes one frozen layer into the store, in the background. Reading
// goes on for several layers at once; they enter the store in the parents'
// order, those that are ready together at once (see adopt.go).
type commit struct {
	space   *Space
	layer   *Layer
	scratch *overlay.Scratch
	options FreezeOptions
}

func (c *commit) run(ctx context.Context) {
	l := c.layer
	if a, err := c.prepare(ctx); err != nil {
		l.err = err
		close(l.known)
	} else {
		l.info = a.info
		c.space.enqueue(a) // before children can know of it
		close(l.known)
		<-a.done
		a.sum.Close()
		l.err = a.err
	}
	close(l.done)
	// The work directory is of no use any more; the upper is a layer now, or
	// stays as a lower directory until the space closes.
	_ = c.scratch.RemoveWork()
}

// prepare does all that needs no lock.
func (c *commit) prepare(ctx context.Context) (*adoption, error) {
	sum, err := c.digest(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the new layer: %w", err)
	}
	parent, err := c.layer.parent.waitKnown(ctx)
	if err != nil {
		sum.Close()
		return nil, fmt.Errorf("the layer below: %w", err)
	}
	a := &adoption{ctx: ctx, commit: c, parent: parent, info: parent.child(sum.Digest, sum.Size), sum: sum, done: make(chan struct{})}
	if err := a.stage(); err != nil {
		sum.Close()
		return nil, fmt.Errorf("the record of the new layer: %w", store.Explain(c.space.st.Raw().GraphRoot(), err))
	}
	return a, nil
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
