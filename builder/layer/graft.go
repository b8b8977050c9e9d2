package layer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/stratabuild/strata/builder/overlay"
)

// Graft returns a layer on top of parent with the content of l, which was made
// on an empty root (BeginOptions.Linked) and is in the store: its tar stream,
// and so its diff ID, is the same. Files are hard linked. Its commit goes on
// in the background, and ends with life.
func (s *Space) Graft(ctx, life context.Context, parent, l *Layer) (*Layer, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if n := parent.Depth() + 1; n > overlay.MaxLowers {
		return nil, tooMany(n)
	}
	for _, chain := range []*Layer{parent, l} {
		if err := s.pin(ctx, chain); err != nil {
			return nil, err
		}
	}
	if s.viaStorage(parent) || s.viaStorage(l) {
		return s.graftManaged(ctx, life, parent, l)
	}
	_, dir, err := s.ws.Dir(ctx)
	if err != nil {
		return nil, err
	}
	attr, err := rootAttr(s.lowers(parent))
	if err != nil {
		return nil, err
	}
	scratch, err := overlay.NewScratch(dir, s.step(), attr)
	if err != nil {
		return nil, err
	}
	if err := s.mergeInto(ctx, scratch.Upper, nil, []*Layer{l}, FreezeOptions{}); err != nil {
		scratch.Close()
		return nil, errors.Join(fmt.Errorf("putting a linked layer on another: %w", err), scratch.RemoveAll())
	}
	return s.commitUpper(life, parent, scratch, FreezeOptions{}), nil
}

func (s *Space) graftManaged(ctx, life context.Context, parent, l *Layer) (*Layer, error) {
	info, err := l.Wait(ctx)
	if err != nil {
		return nil, err
	}
	g := &Layer{parent: parent, depth: parent.Depth() + 1, done: make(chan struct{})}
	s.commits.Go(func() {
		defer close(g.done)
		g.info, g.err = s.commitStream(life, parent, func(w io.Writer) error {
			return s.export(life, "", string(info.ID), FreezeOptions{}, w)
		})
	})
	return g, nil
}
