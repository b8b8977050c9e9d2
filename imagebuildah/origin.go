package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// origin is where COPY and ADD take their sources from: the context, an
// earlier stage, or an image.
type origin struct {
	// open gives the root; the origin closes it.
	open   func(context.Context) (*copier.Root, error)
	ignore copier.Matcher
	index  copier.Index
	// keepOwner: owners of a root file system mean something, those of a
	// context do not.
	keepOwner bool
	// detached: the root is that of a mount that is in no namespace.
	detached bool
	// quick identifies the whole root without opening it; nil for contexts.
	quick func(context.Context) (define.LayerID, error)
	// here names the root among those of this run; "" when it has no name.
	here string
	// top is the chain that the root is made of; nil for contexts.
	top func(context.Context) (*layer.Layer, error)

	closers []func() error
}

func (o *origin) close() error {
	var err error
	for i := len(o.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, o.closers[i]())
	}
	o.closers = nil
	return err
}

// openOrigin finds what --from names; "" is the context.
func (s *stage) openOrigin(ctx context.Context, from string) (*origin, error) {
	if from == "" {
		return s.b.contextOrigin(), nil
	}
	if root := s.b.roots[from]; root != nil {
		o := &origin{keepOwner: true, detached: true}
		o.open = func(context.Context) (*copier.Root, error) { return root, nil }
		return o, nil
	}
	if c, ok := s.b.contexts.find(from); ok {
		return s.namedOrigin(ctx, c)
	}
	if i, ok := s.b.file.StageByName(from, s.def.Index); ok {
		return s.stageOrigin(ctx, i)
	}
	if strings.EqualFold(from, s.def.Name) {
		return nil, fmt.Errorf("--from=%s: a stage cannot copy from itself: %w", from, define.ErrInvalid)
	}
	return s.imageOrigin(ctx, from)
}

// contextOrigin is the context; where there is none, nothing is taken of it.
func (b *build) contextOrigin() *origin {
	o := &origin{}
	if b.index != nil {
		o.index = b.index
	}
	if b.context != nil {
		o.ignore = b.context.Ignore()
		o.open = func(context.Context) (*copier.Root, error) { return b.context.Root(), nil }
		o.here = "context"
	}
	return o
}

func (s *stage) stageOrigin(ctx context.Context, i int) (*origin, error) {
	source, err := s.b.wait(ctx, i)
	if err != nil {
		return nil, err
	}
	o := &origin{keepOwner: true, quick: source.topID}
	if source.descent != "" {
		o.here = "stage " + source.descent.String()
	}
	o.top = func(ctx context.Context) (*layer.Layer, error) {
		if err := source.materialize(ctx); err != nil {
			return nil, err
		}
		return source.c.Top(), nil
	}
	o.open = s.viewOpener(o)
	return o, nil
}

// noOrigin says what a name is not that is taken for an image's.
func (b *build) noOrigin() string {
	if len(b.file.Stages) == 0 {
		return "no container" // a step of its own
	}
	return "no earlier stage"
}

func (s *stage) imageOrigin(ctx context.Context, name string) (*origin, error) {
	allowed, err := s.b.opts.allowedImage(name)
	if err != nil {
		return nil, fmt.Errorf("--from=%s: %w", name, err)
	}
	c, err := s.b.engine.From(ctx, builder.FromOptions{Image: allowed, Platform: s.c.Image.Platform, Pull: s.b.opts.Pull, Space: s.b.space})
	if err != nil {
		return nil, fmt.Errorf("--from: %s is %s, and as an image: %w", name, s.b.noOrigin(), err)
	}
	o := &origin{keepOwner: true, closers: []func() error{c.Close}}
	o.quick = func(ctx context.Context) (define.LayerID, error) {
		if c.Top() == nil {
			return "", nil
		}
		info, err := c.Top().Wait(ctx)
		return info.ID, err
	}
	o.top = func(context.Context) (*layer.Layer, error) { return c.Top(), nil }
	o.open = s.viewOpener(o)
	return o, nil
}

// viewOpener opens the chain's root at the first call.
func (s *stage) viewOpener(o *origin) func(context.Context) (*copier.Root, error) {
	var root *copier.Root
	return func(ctx context.Context) (*copier.Root, error) {
		if root != nil {
			return root, nil
		}
		l, err := o.top(ctx)
		if err != nil {
			return nil, err
		}
		view, err := s.b.space.View(ctx, l)
		if err != nil {
			return nil, err
		}
		o.closers = append(o.closers, view.Close)
		if root, err = copier.NewRoot(view.Root()); err != nil {
			return nil, err
		}
		if s.b.engine.SingleID() {
			root.RememberOwners(view.LinkOwner)
		}
		o.closers = append(o.closers, root.Close)
		return root, nil
	}
}
