package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/mount"
)

// Mount makes the stored container's root visible in this process's mount
// namespace, and for as long as that lasts or until Unmount, at the place that
// it returns: containers/storage's own mount, which podman and buildah know
// of. A container that is mounted already stays as it is.
func (c *Container) Mount(ctx context.Context) (string, error) {
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	if c.working != nil || c.stored.layered {
		return "", fmt.Errorf("container %s is being changed: %w", c.stored.name, define.ErrInUse)
	}
	if at := c.engine.mountPoint(c.stored.layerID); at != "" {
		return at, nil
	}
	if err := c.engine.mountHome(); err != nil {
		return "", err
	}
	at, err := c.engine.store.Raw().Mount(c.stored.id, "")
	if err != nil {
		return "", fmt.Errorf("mounting container %s: %w", c.stored.name, store.Explain(c.engine.store.Raw().GraphRoot(), err))
	}
	return at, nil
}

// mountHome makes the storage driver's directory a private mount, as
// containers/storage does whenever it is opened, but for us, who need no mount
// otherwise: the next program would put that mount over ours.
func (e *Engine) mountHome() error {
	raw := e.store.Raw()
	if raw.GraphDriverName() != "overlay" {
		return nil
	}
	home := filepath.Join(raw.GraphRoot(), "overlay")
	if err := mount.MakePrivate(home); err != nil {
		return fmt.Errorf("mounting %s: %w", home, err)
	}
	return nil
}

// Unmount ends Mount, whoever mounted the container and how often; it reports
// whether there was anything to end.
func (c *Container) Unmount(ctx context.Context) (bool, error) {
	if err := context.Cause(ctx); err != nil {
		return false, err
	}
	raw := c.engine.store.Raw()
	n, err := raw.Mounted(c.stored.layerID)
	if err != nil {
		return false, fmt.Errorf("container %s: %w", c.stored.name, err)
	}
	if n == 0 {
		return false, nil
	}
	// With force: counts stay behind when a namespace ends with its mounts.
	if _, err := raw.Unmount(c.stored.layerID, true); err != nil && !errors.Is(err, storage.ErrLayerNotMounted) {
		return false, fmt.Errorf("unmounting container %s: end the processes that have files of it open: %w", c.stored.name, err)
	}
	return true, nil
}

// mountPoint returns where containers/storage has mounted a layer, if that can
// be seen in this mount namespace, else "".
func (e *Engine) mountPoint(layerID string) string {
	l, err := e.store.Raw().Layer(layerID)
	if err != nil || l.MountCount == 0 || l.MountPoint == "" {
		return ""
	}
	at, err := os.Lstat(l.MountPoint)
	if err != nil {
		return ""
	}
	if e.store.Raw().GraphDriverName() != "overlay" {
		return l.MountPoint // a directory that is always there
	}
	above, err := os.Lstat(filepath.Dir(l.MountPoint))
	if err != nil || os.SameFile(at, above) || device(at) == device(above) {
		return ""
	}
	return l.MountPoint
}
