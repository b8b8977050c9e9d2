package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// A container of containers/storage lies on its image for life. When the
// chain of a stored container has grown (Layered), it is put on a nameless
// image that stands for the chain, by making the container anew: same ID, same
// name, empty writable layer. What that takes is written down first, so that a
// process that dies in between loses nothing: whoever looks for the container
// next finishes the work.

// pendingSwap is the note of a swap under way.
type pendingSwap struct {
	ID, Name string
	Image    define.ImageID
	State    containerState
}

const swapSuffix = ".swap"

// swap puts the container on its present chain.
func (c *Container) swap(ctx context.Context) error {
	if c.working != nil {
		if _, err := c.Seal(ctx, layer.FreezeOptions{}); err != nil {
			return err
		}
	}
	if c.top == c.stored.parent {
		// Nothing has grown; what Layered found there is none.
		c.stored.layered = false
		return c.Save(ctx)
	}
	infos, err := chain(ctx, c.top)
	if err != nil {
		return err
	}
	// Until the container is there again, the stand-in is an image that nobody
	// uses: prune takes the same lock.
	unlock, err := c.engine.store.Lock(ctx)
	if err != nil {
		return err
	}
	unlock = sync.OnceFunc(unlock)
	defer unlock()
	standIn, err := c.recordStandIn(infos[len(infos)-1].ID, encodedLayers(infos))
	if err != nil {
		return err
	}
	before := c.stored.standIn
	c.stored.standIn, c.stored.parent = standIn, c.top
	st, err := c.state(ctx)
	if err != nil {
		return err
	}
	// The space lies beside the layer that goes; the stand-in keeps the chain.
	life := c.space.life
	if err := c.space.Close(); err != nil {
		return err
	}
	p := &pendingSwap{ID: c.stored.id, Name: c.stored.name, Image: standIn, State: *st}
	rec, err := c.engine.carryOut(p)
	unlock()
	if err != nil {
		return err
	}
	c.stored.layerID, c.stored.layered = rec.LayerID, false
	if err := c.openChain(life, st); err != nil {
		return err
	}
	if before != "" && before != standIn {
		return c.engine.dropStandIn(ctx, before)
	}
	return nil
}

func (c *Container) recordStandIn(top define.LayerID, layers []image.Layer) (define.ImageID, error) {
	img := c.Image.Clone()
	img.Created = newest(img.History)
	// The image stands for files; a history that does not fit the layers is
	// none.
	img.History = nil
	enc, err := img.Encode(define.FormatOCI, layers)
	if err != nil {
		return "", err
	}
	return enc.ID, image.Record(c.engine.store, enc, top, nil)
}

// carryOut does a swap, from wherever an earlier try has left it.
func (e *Engine) carryOut(p *pendingSwap) (*storage.Container, error) {
	if err := e.noteSwap(p); err != nil {
		return nil, err
	}
	raw := e.store.Raw()
	if err := raw.DeleteContainer(p.ID); err != nil && !errors.Is(err, storage.ErrNotAContainer) {
		return nil, fmt.Errorf("container %s: %w", p.Name, err)
	}
	rec, err := raw.CreateContainer(p.ID, []string{p.Name}, string(p.Image), "", containerMetadata, &storage.ContainerOptions{})
	if err != nil {
		return nil, fmt.Errorf("container %s: putting it on its new layers: %w", p.Name, err)
	}
	state, err := json.Marshal(&p.State)
	if err != nil {
		return nil, err
	}
	if err := writeAtomic(e.statePath(p.ID), state, false); err != nil {
		return nil, err
	}
	note, err := e.swapNote(p.ID)
	if err != nil {
		return nil, err
	}
	return rec, os.Remove(note)
}

func (e *Engine) swapNote(id string) (string, error) {
	dir, err := e.containerDir()
	return filepath.Join(dir, id+swapSuffix), err
}

// noteSwap writes down what is to be done.
func (e *Engine) noteSwap(p *pendingSwap) error {
	note, err := e.swapNote(p.ID)
	if err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return writeAtomic(note, b, true)
}

// dropStandIn removes an image that stood for a chain, if nobody else uses or
// has named it. Its layers stay: the cache knows them, and prune collects them.
// Under the lock: another container may be about to be put on the same image,
// and prune may be at it.
func (e *Engine) dropStandIn(ctx context.Context, id define.ImageID) error {
	unlock, err := e.store.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	raw := e.store.Raw()
	img, err := raw.Image(string(id))
	if err != nil || len(img.Names) > 0 {
		return nil //nolint:nilerr // gone already
	}
	list, err := raw.Containers()
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	for i := range list {
		if list[i].ImageID == string(id) {
			return nil
		}
	}
	// The library removes layers with the last image that needs them, unless
	// others lie on them.
	ws := e.store.NewWorkspace()
	err = ws.Pin(ctx, define.LayerID(img.TopLayer))
	if err == nil {
		_, err = raw.DeleteImage(img.ID, true)
	}
	switch {
	case errors.Is(err, storage.ErrImageUnknown), errors.Is(err, storage.ErrNotAnImage), errors.Is(err, storage.ErrImageUsedByContainer):
		err = nil // other tools do not take the lock
	}
	return errors.Join(err, ws.Close())
}

// Remove deletes a stored container with its changes, and closes it.
func (c *Container) Remove(ctx context.Context) error {
	if c.stored == nil {
		return c.Close()
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := c.closeRoots(); err != nil {
		return err
	}
	if err := c.engine.deleteContainer(c.stored.id, c.stored.name, c.stored.layerID); err != nil {
		return errors.Join(err, c.stored.lock.release())
	}
	if c.stored.standIn != "" {
		if err := c.engine.dropStandIn(ctx, c.stored.standIn); err != nil {
			return errors.Join(err, c.stored.lock.remove())
		}
	}
	return c.stored.lock.remove()
}

// RemoveContainer removes a container whatever its state is: damaged ones and
// those that other programs made, too. It returns the ID.
func (e *Engine) RemoveContainer(ctx context.Context, nameOrID string) (string, error) {
	rec, err := e.findContainer(ctx, nameOrID)
	if err != nil {
		if id, failedErr := e.removeFailed(ctx, nameOrID); id != "" || failedErr != nil {
			return id, failedErr
		}
		return "", err
	}
	lock, err := e.lockContainer(ctx, rec.ID, containerTitle(rec))
	if err != nil {
		return "", err
	}
	if err := e.forgetSwap(rec.ID); err != nil {
		return "", errors.Join(err, lock.release())
	}
	var standIn define.ImageID
	if st, err := e.readState(rec); err == nil {
		standIn = st.StandIn
	}
	if err := e.deleteContainer(rec.ID, containerTitle(rec), rec.LayerID); err != nil {
		return "", errors.Join(err, lock.release())
	}
	if standIn != "" {
		err = e.dropStandIn(ctx, standIn)
	}
	return rec.ID, errors.Join(err, lock.remove())
}

func (e *Engine) deleteContainer(id, name, layerID string) error {
	raw := e.store.Raw()
	if n, err := raw.Mounted(layerID); err == nil && n > 0 {
		if _, err := raw.Unmount(layerID, true); err != nil && !errors.Is(err, storage.ErrLayerNotMounted) {
			return fmt.Errorf("unmounting container %s: %w", name, err)
		}
	}
	// A process that dies in between leaves one without a state: see halfMade.
	if err := os.Remove(e.statePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing container %s: %w", name, err)
	}
	if err := raw.DeleteContainer(id); err != nil && !errors.Is(err, storage.ErrNotAContainer) {
		return fmt.Errorf("removing container %s: %w", name, err)
	}
	return nil
}
