package layer

import (
	"context"
	"errors"
	"os"
	"sync"
)

// View is a readable root of a chain.
type View struct {
	space   *Space
	top     *Layer
	root    *os.File
	managed *managed // what is mounted by way of the store, if so
	kept    *kept    // the container's layer that ViewOn shows
	end     sync.Once
}

// View makes the chain readable; nil gives an empty directory. The layers
// need not be committed yet.
func (s *Space) View(ctx context.Context, l *Layer) (*View, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := s.pin(ctx, l); err != nil {
		return nil, err
	}
	v := &View{space: s, top: l}
	var err error
	if s.viaStorage(l) {
		err = s.viewManaged(ctx, l, v)
	} else {
		v.root, err = s.mountReadOnly(ctx, l)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.views[v] = struct{}{}
	s.mu.Unlock()
	return v, nil
}

// Root is a descriptor of the merged root: a detached read-only mount, or the
// only layer's directory (driver vfs, the empty root).
func (v *View) Root() *os.File { return v.root }

// Close releases the view.
func (v *View) Close() error {
	var err error
	v.end.Do(func() {
		v.space.mu.Lock()
		delete(v.space.views, v)
		v.space.mu.Unlock()
		err = v.root.Close()
		if v.managed != nil {
			err = errors.Join(err, v.managed.remove())
		}
		if v.kept != nil {
			err = errors.Join(err, v.kept.close())
		}
	})
	return err
}
