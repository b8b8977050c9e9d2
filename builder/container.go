package builder

import (
	"context"
	"errors"
	"fmt"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// Container is a working container: an image under change. It is used by one
// goroutine at a time.
type Container struct {
	// Image is the configuration under change; callers change it directly.
	Image *image.Image
	// Base says what the container was made from.
	Base Base

	engine   *Engine
	space    *Space
	ownSpace bool
	base     *layer.Layer // chain of the base image, nil for scratch
	top      *layer.Layer // chain so far, without open changes
	working  *layer.Working
	omit     []string // mount points made in the working root
	stored   *stored  // of a container that outlives the process
}

// Base says what a container was made from.
type Base struct {
	Name   string // full name, "" for scratch and for other containers
	ID     define.ImageID
	Digest string // of the manifest
}

// FromOptions says what a container starts as.
type FromOptions struct {
	// Image is a name, an ID, a name with a transport, or "scratch".
	Image    string
	Platform define.Platform // zero: the host's
	Pull     define.PullPolicy
	// Space shares layers with other containers of the same build; nil makes
	// one that the container owns.
	Space *Space
}

// From makes a container from an image, fetching it when the policy says so.
func (e *Engine) From(ctx context.Context, o FromOptions) (*Container, error) {
	if o.Platform.OS == "" {
		o.Platform = define.HostPlatform()
	}
	c := &Container{engine: e, space: o.Space}
	if c.space == nil {
		c.space, c.ownSpace = e.NewSpace(ctx), true
	}
	if o.Image == "" || o.Image == "scratch" {
		// As docker and buildah have it: ENV PATH=/opt/bin:$PATH must not
		// lose the default.
		c.Image = image.New(o.Platform)
		c.Image.SetEnv("PATH", DefaultPath)
		return c, nil
	}
	if err := c.load(ctx, o); err != nil {
		if c.ownSpace {
			err = errors.Join(err, c.space.Close())
		}
		return nil, err
	}
	return c, nil
}

func (c *Container) load(ctx context.Context, o FromOptions) error {
	local, err := c.engine.transport.Pull(ctx, o.Image, o.Platform, o.Pull)
	if err != nil {
		return err
	}
	stored, err := image.Load(c.engine.store, local.ID)
	if err != nil {
		return err
	}
	c.Image = stored.Image.Clone()
	c.Base = Base{Name: local.Name, ID: local.ID, Digest: stored.Digest.String()}
	if stored.TopLayer != "" {
		if c.base, err = c.space.Open(ctx, stored.TopLayer); err != nil {
			return fmt.Errorf("base image %s: %w", o.Image, err)
		}
	}
	c.top = c.base
	return nil
}

// Fork makes a container that starts as this one is: its image copied, its
// chain shared. The receiver must have no open changes.
func (c *Container) Fork() (*Container, error) {
	if c.working != nil {
		return nil, errors.New("container has changes that are not sealed")
	}
	return &Container{engine: c.engine, space: c.space, Image: c.Image.Clone(), Base: c.Base, base: c.base, top: c.top}, nil
}

// Top is the chain without open changes; nil is the empty root.
func (c *Container) Top() *layer.Layer { return c.top }

// Engine is the engine that the container was made with.
func (c *Container) Engine() *Engine { return c.engine }

// Adopt puts a layer of the store, a child of the present top, on top of the
// chain, as a step that was executed before would have.
func (c *Container) Adopt(ctx context.Context, id define.LayerID) error {
	if c.working != nil {
		return errors.New("container has changes that are not sealed")
	}
	l, err := c.space.Open(ctx, id)
	if err != nil {
		return err
	}
	c.top = l
	return nil
}

// begin opens the working root when it is not open.
func (c *Container) begin(ctx context.Context, o layer.BeginOptions) (*layer.Working, error) {
	if c.working != nil {
		return c.working, nil
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	w, err := c.resume(ctx, o)
	if err != nil {
		return nil, err
	}
	c.working = w
	return w, nil
}

// View calls f with a readable root of the container as it is now, open
// changes included.
func (c *Container) View(ctx context.Context, f func(*copier.Root) error) error {
	if c.working != nil {
		return withRoot(c.working.Root(), c.remembering(c.working.LinkOwner, f))
	}
	if c.stored != nil && !c.stored.layered {
		return c.viewStored(ctx, f)
	}
	v, err := c.space.View(ctx, c.top)
	if err != nil {
		return err
	}
	return errors.Join(withRoot(v.Root(), c.remembering(v.LinkOwner, f)), v.Close())
}

// remembering has f see the owners that are remembered where there is one id.
func (c *Container) remembering(links func(name string) (copier.Owner, bool), f func(*copier.Root) error) func(*copier.Root) error {
	if !c.engine.opts.SingleID {
		return f
	}
	return func(r *copier.Root) error {
		r.RememberOwners(links)
		return f(r)
	}
}

// Dirty reports whether there are open changes.
func (c *Container) Dirty() bool { return c.working != nil || c.stored.open() }

// Seal turns the open changes into a layer on top of the chain. Its commit
// to the store goes on in the background; the container can be used at once.
// Without open changes it returns the present top.
func (c *Container) Seal(ctx context.Context, o layer.FreezeOptions) (*layer.Layer, error) {
	if c.working == nil {
		return c.top, nil
	}
	if c.stored != nil && !c.stored.layered {
		return nil, fmt.Errorf("container %s keeps its changes in one layer: %w", c.stored.name, define.ErrInvalid)
	}
	o.Omit = append(append([]string(nil), o.Omit...), c.omit...)
	l, err := c.working.Freeze(c.space.life, o)
	c.working, c.omit = nil, nil
	if err != nil {
		return nil, err
	}
	c.top = l
	return l, nil
}

// Rollback throws the open changes away; a stored container keeps what it has
// been changed to.
func (c *Container) Rollback() error {
	if c.working == nil {
		return nil
	}
	if c.stored != nil && !c.stored.layered {
		return c.Keep(c.space.life, layer.FreezeOptions{})
	}
	err := c.working.Discard()
	c.working, c.omit = nil, nil
	return err
}

// Close throws open changes away and, when the container owns its space,
// releases all that is not in the store. The open changes of a stored
// container stay in it; those since Layered go unless they are saved.
func (c *Container) Close() error {
	err := c.closeRoots()
	if c.stored != nil {
		err = errors.Join(err, c.stored.lock.release())
	}
	return err
}

func (c *Container) closeRoots() error {
	err := c.Rollback()
	if c.ownSpace {
		err = errors.Join(err, c.space.Close())
	}
	return err
}
