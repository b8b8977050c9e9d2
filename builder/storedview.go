package builder

import (
	"context"
	"io/fs"
	"syscall"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
)

// Settings are what a stored container is told at its creation about the
// commands to come, beside Confinement: they are no part of cache keys.
type Settings struct {
	// Isolation, Runtime and RuntimeFlags are as in Options.
	Isolation, Runtime string
	RuntimeFlags       []string
	// Format is that of images made of it; "" is none in particular.
	Format define.Format
}

// Settings are what CreateOptions said.
func (c *Container) Settings() Settings { return c.stored.settings }

// Prefer chooses the isolation of steps, when it is called before the first
// one: where Options have not, or in place of what they chose.
func (e *Engine) Prefer(s Settings, instead bool) error {
	if (e.opts.Isolation != "" || e.opts.Runtime != "") && !instead {
		return nil
	}
	if err := checkIsolation(s.Isolation); err != nil {
		return err
	}
	e.opts.Isolation, e.opts.Runtime, e.opts.RuntimeFlags = s.Isolation, s.Runtime, s.RuntimeFlags
	return nil
}

// ContainerDetails are all that is known of a stored container.
type ContainerDetails struct {
	ContainerInfo
	Image    *image.Image
	Base     Base
	Defaults Confinement
	Settings Settings
	// MountPoint is where the container is mounted in this mount namespace.
	MountPoint string
}

// InspectContainer reads a container that Create made, without locking it.
func (e *Engine) InspectContainer(ctx context.Context, nameOrID string) (*ContainerDetails, error) {
	rec, err := e.findContainer(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	st, err := e.readState(rec)
	if err != nil {
		return nil, err
	}
	return &ContainerDetails{
		ContainerInfo: e.containerInfo(rec), Image: st.Image, Base: st.Base, Defaults: st.Defaults, Settings: st.Settings,
		MountPoint: e.mountPoint(rec.LayerID),
	}, nil
}

// MountPoint is where the container is mounted in this mount namespace, else "".
func (e *Engine) MountPoint(i ContainerInfo) string { return e.mountPoint(i.LayerID) }

func device(i fs.FileInfo) uint64 {
	st, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Dev) //nolint:unconvert // 32 bits on some architectures
}
