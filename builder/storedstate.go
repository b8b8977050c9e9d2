package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// stateFile is the state's name in the container's directory.
const stateFile = "strata.json"

const stateVersion = 1

// maxState bounds a state file, in bytes.
const maxState = 4 * image.MaxDocument

// containerState is what a stored container's file says.
type containerState struct {
	Version   int
	Image     *image.Image
	Base      Base
	BaseLayer define.LayerID
	// Top is the chain that the writable layer lies on.
	Top      define.LayerID
	StandIn  define.ImageID `json:",omitempty"`
	Defaults Confinement
	Settings Settings
	Script   string    `json:",omitempty"`
	Note     LayerNote `json:",omitzero"`
	Created  time.Time
}

// ContainerInfo describes a container of the store.
type ContainerInfo struct {
	ID    string
	Name  string
	Names []string
	// Ours: strata made it and can work on it.
	Ours      bool
	ImageID   define.ImageID
	ImageName string
	Created   time.Time
	Script    string
	LayerID   string
}

// Containers lists the containers of the store, the oldest first, without
// locking any that is in use.
func (e *Engine) Containers(ctx context.Context) ([]ContainerInfo, error) {
	e.finishSwaps(ctx) // else one that was being changed would be absent
	list, err := e.store.Raw().Containers()
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	infos := make([]ContainerInfo, 0, len(list))
	for i := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		infos = append(infos, e.containerInfo(&list[i]))
	}
	slices.SortStableFunc(infos, func(a, b ContainerInfo) int { return a.Created.Compare(b.Created) })
	return infos, nil
}

func (e *Engine) containerInfo(rec *storage.Container) ContainerInfo {
	info := ContainerInfo{ID: rec.ID, Name: containerTitle(rec), Names: rec.Names, ImageID: define.ImageID(rec.ImageID),
		Created: rec.Created, LayerID: rec.LayerID}
	if st, err := e.readState(rec); err == nil {
		info.Ours, info.ImageID, info.ImageName, info.Script = true, st.Base.ID, st.Base.Name, st.Script
		return info
	}
	if rec.ImageID != "" {
		if img, err := e.store.Raw().Image(rec.ImageID); err == nil && len(img.Names) > 0 {
			info.ImageName = img.Names[0]
		}
	}
	return info
}

func containerTitle(rec *storage.Container) string {
	if len(rec.Names) > 0 {
		return rec.Names[0]
	}
	return rec.ID[:min(12, len(rec.ID))]
}

// findContainer looks a container up.
func (e *Engine) findContainer(ctx context.Context, nameOrID string) (*storage.Container, error) {
	if nameOrID == "" {
		return nil, fmt.Errorf("the container's name is empty: %w", define.ErrInvalid)
	}
	raw := e.store.Raw()
	rec, err := raw.Container(nameOrID)
	if errors.Is(err, storage.ErrContainerUnknown) {
		failed := e.finishSwaps(ctx)
		rec, err = raw.Container(nameOrID)
		for i := range failed {
			if err != nil && failed[i].is(nameOrID) {
				return nil, failed[i].err
			}
		}
	}
	switch {
	case err == nil:
		return rec, nil
	case errors.Is(err, storage.ErrContainerUnknown):
		return nil, e.noContainer(nameOrID)
	}
	return nil, fmt.Errorf("container %s: %w", nameOrID, err)
}

// noContainer says that there is no such container, and which ones the user
// may have meant.
func (e *Engine) noContainer(name string) error {
	err := fmt.Errorf("container %s: %w; see containers --all", name, define.ErrNotFound)
	list, listErr := e.store.Raw().Containers()
	if listErr != nil {
		return err
	}
	var names []string
	for i := range list {
		names = append(names, list[i].Names...)
	}
	if near := define.Nearest(name, names, 3); len(near) > 0 {
		return fmt.Errorf("container %s: %w; there is %s", name, define.ErrNotFound, strings.Join(near, ", "))
	}
	return err
}

// statePath finds a container's file without locking the store: the place is
// containers/storage's, the driver's name with "-containers".
func (e *Engine) statePath(id string) string {
	raw := e.store.Raw()
	return filepath.Join(raw.GraphRoot(), raw.GraphDriverName()+"-containers", id, "userdata", stateFile)
}

func (e *Engine) readState(rec *storage.Container) (*containerState, error) {
	b, err := os.ReadFile(e.statePath(rec.ID))
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && rec.Metadata == containerMetadata:
		return nil, fmt.Errorf("container %s: the process that made or removed it has not ended its work: remove it with rm: %w", containerTitle(rec), define.ErrInvalid)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("container %s was made by another program: use that, or make one with from: %w", containerTitle(rec), define.ErrInvalid)
	default:
		return nil, fmt.Errorf("container %s: %w", containerTitle(rec), err)
	}
	return decodeState(containerTitle(rec), b)
}

func decodeState(title string, b []byte) (*containerState, error) {
	st := &containerState{}
	if len(b) > maxState {
		return nil, fmt.Errorf("container %s: its state is larger than %d bytes: remove it with rm: %w", title, maxState, define.ErrInvalid)
	}
	if err := json.Unmarshal(b, st); err != nil || st.Image == nil {
		return nil, fmt.Errorf("container %s: its state is damaged (%w): remove it with rm: %w", title, err, define.ErrInvalid)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("container %s: its state is of version %d, this strata knows %d: %w", title, st.Version, stateVersion, define.ErrUnsupported)
	}
	return st, nil
}

// state is what Save writes. The chain is in the store.
func (c *Container) state(ctx context.Context) (*containerState, error) {
	base, err := c.base.Wait(ctx)
	if err != nil {
		return nil, err
	}
	parent, err := c.stored.parent.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return &containerState{
		Version: stateVersion, Image: c.Image, Base: c.Base, BaseLayer: base.ID, Top: parent.ID,
		StandIn: c.stored.standIn, Defaults: c.stored.defaults, Settings: c.stored.settings, Script: c.stored.script, Created: c.stored.created,
		Note: c.stored.note,
	}, nil
}

// Save records the configuration and, after Layered, the chain of a stored
// container. Until then other processes see it as it was.
func (c *Container) Save(ctx context.Context) error {
	if c.stored.layered {
		return c.swap(ctx)
	}
	st, err := c.state(ctx)
	if err != nil {
		return err
	}
	return c.writeState(st)
}

func (c *Container) writeState(st *containerState) error {
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.stored.name, err)
	}
	// Not synced: a container is work in progress, and what is committed is
	// synced then.
	return writeAtomic(c.engine.statePath(c.stored.id), b, false)
}

// newSuffix is that of files that are being written.
const newSuffix = ".new"

// writeAtomic replaces a file.
func writeAtomic(path string, b []byte, sync bool) error {
	tmp := path + newSuffix
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		}
	}
	if err == nil {
		_, err = f.Write(b)
		if sync && err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Rename(tmp, path)
		}
		if err != nil {
			_ = os.Remove(tmp)
		}
	}
	if err != nil {
		return fmt.Errorf("writing the container's state: %w", store.Explain(path, err))
	}
	return nil
}

// Rename gives a stored container another name.
func (c *Container) Rename(ctx context.Context, name string) error {
	if err := CheckContainerName(name); err != nil {
		return err
	}
	if name == c.stored.name {
		return fmt.Errorf("container %s has that name already: %w", name, define.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	raw := c.engine.store.Raw()
	if other, err := raw.Container(name); err == nil && other.ID != c.stored.id {
		return fmt.Errorf("container %s exists already (%s): choose another name: %w", name, other.ID[:12], define.ErrInvalid)
	}
	if err := raw.SetNames(c.stored.id, []string{name}); err != nil { //nolint:staticcheck // the only call that replaces a name in one step
		return fmt.Errorf("renaming container %s: %w", c.stored.name, err)
	}
	c.stored.name = name
	return nil
}
