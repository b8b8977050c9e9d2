package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// CreateOptions says what a stored container is made from.
type CreateOptions struct {
	From FromOptions
	// Name is the container's name; "" derives one from the image's:
	// alpine-working-container, then alpine-working-container-1 and so on.
	Name string
	// Suffix ends the derived name; "": working-container.
	Suffix string
	// Defaults are what steps in it run with unless they say otherwise.
	Defaults Confinement
	Settings Settings
	// Script names the transaction that the container belongs to, if any.
	Script string
}

// LayerNote is what the history of an image says of the layer that the commit
// of a stored container makes; "" is the usual text.
type LayerNote struct {
	CreatedBy string `json:",omitempty"`
	Comment   string `json:",omitempty"`
}

// stored is what a container that outlives the process has besides.
type stored struct {
	id, name string
	layerID  string // of containers/storage: the container's writable layer
	defaults Confinement
	settings Settings
	script   string
	created  time.Time
	lock     *containerLock
	// parent is the chain that the writable layer lies on.
	parent *layer.Layer
	// layered: changes go into layers of their own; see Layered.
	layered bool
	// changed: the writable layer holds changes that no layer of the chain
	// has.
	changed bool
	// note is what the history will say of the layer that Commit makes.
	note LayerNote
	// standIn is a nameless image that stands for the chain while no other
	// does; "" when the container lies on its base image.
	standIn define.ImageID
}

// Create makes a working container that outlives the process: a container of
// containers/storage, so that podman and buildah see it, with the state in a
// file of its directory. It is locked for this process until Close.
func (e *Engine) Create(ctx context.Context, o CreateOptions) (*Container, error) {
	if o.Name != "" {
		if err := CheckContainerName(o.Name); err != nil {
			return nil, err
		}
	}
	c, err := e.From(ctx, o.From)
	if err != nil {
		return nil, err
	}
	c.stored = &stored{defaults: o.Defaults, settings: o.Settings, script: o.Script, created: time.Now().UTC(), parent: c.top}
	if err := c.createStored(ctx, o.Name, o.Suffix, string(c.Base.ID)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	st, err := c.state(ctx)
	if err == nil {
		err = c.writeState(st)
	}
	if err == nil {
		// What was needed to find the image is not needed any more.
		if err = c.space.Close(); err == nil {
			err = c.openChain(ctx, st)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Remove(ctx))
	}
	return c, nil
}

// createStored makes the container's record and its writable layer.
func (c *Container) createStored(ctx context.Context, name, suffix, imageID string) error {
	raw := c.engine.store.Raw()
	derived := name == ""
	if derived {
		name = workingName(c.Base.Name, cmp.Or(suffix, "working-container"))
	}
	// A container that is just put on other layers is not in the list.
	unlock, err := c.engine.store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	base, taken := name, map[string]bool{}
	if derived {
		// The library finds a name to be taken only after it made a layer.
		list, err := raw.Containers()
		if err != nil {
			return fmt.Errorf("listing containers: %w", err)
		}
		for i := range list {
			for _, n := range list[i].Names {
				taken[n] = true
			}
		}
	}
	id := newContainerID()
	lock, err := c.engine.lockContainer(ctx, id, name)
	if err != nil {
		return err
	}
	c.stored.lock = lock
	for n := 1; ; n++ {
		if taken[name] {
			name = base + "-" + strconv.Itoa(n)
			continue
		}
		rec, err := raw.CreateContainer(id, []string{name}, imageID, "", containerMetadata, &storage.ContainerOptions{})
		if err == nil {
			c.stored.id, c.stored.name, c.stored.layerID = rec.ID, name, rec.LayerID
			return nil
		}
		switch {
		case errors.Is(err, storage.ErrDuplicateName) && derived:
			name = base + "-" + strconv.Itoa(n)
		case errors.Is(err, storage.ErrDuplicateName):
			return fmt.Errorf("container %s exists already: choose another name, or remove it with rm: %w", name, define.ErrInvalid)
		default:
			return fmt.Errorf("making container %s: %w", name, err)
		}
	}
}

// containerMetadata marks the storage records of strata's containers.
const containerMetadata = `{"builder":"strata"}`

// workingName derives a container's name from its image's.
func workingName(image, suffix string) string {
	if image == "" {
		return suffix
	}
	image, _, _ = strings.Cut(image, "@")
	word := path.Base(image)
	word, _, _ = strings.Cut(word, ":")
	return word + "-" + suffix
}

var containerName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
})

// CheckContainerName reports a name that no container can have.
func CheckContainerName(name string) error {
	if !containerName().MatchString(name) || len(name) > 200 {
		return fmt.Errorf("container name %q: want letters, digits, '_', '.' and '-', a letter or digit first: %w", name, define.ErrInvalid)
	}
	return nil
}

// OpenContainer opens a container that Create made, by its name, its ID or a
// unique beginning of the ID, and locks it until Close. One that another
// process works on is define.ErrInUse, with that process's number.
func (e *Engine) OpenContainer(ctx context.Context, nameOrID string) (*Container, error) {
	rec, err := e.findContainer(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	lock, err := e.lockContainer(ctx, rec.ID, containerTitle(rec))
	if err != nil {
		return nil, err
	}
	c, err := e.openLocked(ctx, rec)
	if err != nil {
		if _, gone := e.store.Raw().Container(rec.ID); errors.Is(gone, storage.ErrContainerUnknown) {
			// Removed after it was found.
			return nil, errors.Join(e.noContainer(nameOrID), lock.remove())
		}
		return nil, errors.Join(err, lock.release())
	}
	c.stored.lock = lock
	return c, nil
}

// openLocked reads the state of a container.
func (e *Engine) openLocked(ctx context.Context, rec *storage.Container) (*Container, error) {
	if note, err := e.swapNote(rec.ID); err != nil {
		return nil, err
	} else if unix.Access(note, unix.F_OK) == nil {
		// Its process died before it had begun to do what it wrote down.
		if _, err := e.finishSwap(rec.ID); err != nil {
			return nil, err
		}
		if rec, err = e.store.Raw().Container(rec.ID); err != nil {
			return nil, err
		}
	}
	st, err := e.readState(rec)
	if err != nil {
		return nil, err
	}
	c := &Container{engine: e, ownSpace: true, Image: st.Image, Base: st.Base}
	c.stored = &stored{
		id: rec.ID, name: containerTitle(rec), layerID: rec.LayerID, defaults: st.Defaults, settings: st.Settings, script: st.Script,
		created: st.Created, standIn: st.StandIn, note: st.Note,
	}
	if err := c.openChain(ctx, st); err != nil {
		return nil, fmt.Errorf("container %s: %w", c.stored.name, err)
	}
	return c, nil
}

// openChain opens the layers of a stored container in a space of their own.
func (c *Container) openChain(ctx context.Context, st *containerState) error {
	var err error
	if c.space, err = c.engine.containerSpace(ctx, c.stored.layerID); err != nil {
		return err
	}
	if err := c.findChain(ctx, st); err != nil {
		return errors.Join(err, c.space.Close())
	}
	return nil
}

func (c *Container) findChain(ctx context.Context, st *containerState) (err error) {
	if c.base, err = c.space.Open(ctx, st.BaseLayer); err != nil {
		return err
	}
	c.top = c.base
	if st.Top != st.BaseLayer {
		if c.top, err = c.space.Open(ctx, st.Top); err != nil {
			return err
		}
	}
	c.stored.parent = c.top
	c.stored.changed, err = c.space.Changed(c.top, c.stored.layerID)
	return err
}

// ID is the stored container's identifier, 64 hex digits; "" when it is not
// stored.
func (c *Container) ID() string {
	if c.stored == nil {
		return ""
	}
	return c.stored.id
}

// Name is the stored container's name.
func (c *Container) Name() string {
	if c.stored == nil {
		return ""
	}
	return c.stored.name
}

// Created is when the stored container was made.
func (c *Container) Created() time.Time { return c.stored.created }

// LayerID is the writable layer of the stored container, as containers/storage
// knows it.
func (c *Container) LayerID() string { return c.stored.layerID }

// Defaults are the stored container's settings for steps; the caller may
// change them before Save.
func (c *Container) Defaults() *Confinement { return &c.stored.defaults }

// LayerNote is the stored container's; the caller may change it before Save.
func (c *Container) LayerNote() *LayerNote { return &c.stored.note }

// Keep ends the working root; the changes stay open in the container, for the
// next process. Paths of o.Omit that are empty are removed.
func (c *Container) Keep(ctx context.Context, o layer.FreezeOptions) error {
	if c.working == nil {
		return nil
	}
	if c.stored == nil || c.stored.layered {
		return fmt.Errorf("the container has no place to keep changes in: %w", define.ErrInvalid)
	}
	o.Omit = append(append([]string(nil), o.Omit...), c.omit...)
	err := c.working.Keep(ctx, o)
	c.working, c.omit = nil, nil
	if err != nil {
		return err
	}
	c.stored.changed, err = c.space.Changed(c.top, c.stored.layerID)
	return err
}

// Layered seals the changes that are open in the stored container as a layer,
// and lets those to come go into layers of their own, as those of a build do:
// Seal and Adopt work as there. Save makes it so for other processes.
func (c *Container) Layered(ctx context.Context, o layer.FreezeOptions) error {
	if c.stored == nil || c.stored.layered {
		return nil
	}
	if c.working != nil {
		if err := c.Keep(ctx, layer.FreezeOptions{}); err != nil {
			return err
		}
	}
	if n, err := c.engine.store.Raw().Mounted(c.stored.layerID); err == nil && n > 0 {
		return fmt.Errorf("container %s is mounted, which steps from the cache cannot change: umount it first: %w", c.stored.name, define.ErrInUse)
	}
	if c.stored.changed {
		l, err := c.space.Snapshot(ctx, c.top, c.stored.layerID, o)
		if err != nil {
			return err
		}
		c.top = l
	}
	c.stored.layered = true
	return nil
}

// resume opens the working root of a stored container, or of any other.
func (c *Container) resume(ctx context.Context, o layer.BeginOptions) (*layer.Working, error) {
	if c.stored != nil && !c.stored.layered {
		return c.space.Resume(c.space.life, c.stored.parent, c.stored.layerID, o)
	}
	return c.space.Begin(c.space.life, c.top, o)
}

// viewStored is View for changes that are open but not worked on.
func (c *Container) viewStored(ctx context.Context, f func(*copier.Root) error) error {
	v, err := c.space.ViewOn(ctx, c.stored.parent, c.stored.layerID)
	if err != nil {
		return err
	}
	return errors.Join(withRoot(v.Root(), c.remembering(v.LinkOwner, f)), v.Close())
}

// open reports changes that are in no layer.
func (s *stored) open() bool { return s != nil && !s.layered && s.changed }
