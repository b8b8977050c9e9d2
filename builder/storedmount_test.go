package builder_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

func TestMount(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			process := newEngine(t, driver)
			keep(t, create(t, process(), "c"))
			e := process()
			c := open(t, e, "c")
			dir, err := c.Mount(t.Context())
			check(t, err)
			if again, err := c.Mount(t.Context()); err != nil || again != dir {
				t.Errorf("once more: %q, %v", again, err)
			}
			check(t, c.Close())
			if n, err := e.Store().Raw().Mounted(c.LayerID()); err != nil || n != 1 {
				t.Errorf("mounted %d times, %v", n, err)
			}
			check(t, os.WriteFile(filepath.Join(dir, "outside"), []byte("x"), 0o644))

			e = process()
			d, err := e.InspectContainer(t.Context(), "c")
			check(t, err)
			if d.MountPoint != dir || e.MountPoint(d.ContainerInfo) != dir {
				t.Errorf("mount point %q, want %q", d.MountPoint, dir)
			}
			c = open(t, e, "c")
			sh(t, c, "test -e /outside")
			if _, err := c.Mount(t.Context()); !errors.Is(err, define.ErrInUse) {
				t.Errorf("mounting what is being changed: %v", err)
			}
			keep(t, c)
			c = open(t, e, "c")
			if was, err := c.Unmount(t.Context()); !was || err != nil {
				t.Errorf("unmount: %t, %v", was, err)
			}
			if was, err := c.Unmount(t.Context()); was || err != nil {
				t.Errorf("unmount again: %t, %v", was, err)
			}
			if at := e.MountPoint(d.ContainerInfo); at != "" {
				t.Errorf("still mounted at %s", at)
			}
			sh(t, c, "test -e /outside")
			check(t, c.Keep(t.Context(), layer.FreezeOptions{}))
			check(t, c.Remove(t.Context()))
		})
	}
}

// A count that outlived its namespace is no mount, and does not keep the next
// one from ending.
func TestMountStaleCount(t *testing.T) {
	process := newEngine(t, "overlay")
	c := create(t, process(), "c")
	dir, err := c.Mount(t.Context())
	check(t, err)
	check(t, unix.Unmount(dir, unix.MNT_DETACH))
	e := process()
	if at, err := e.InspectContainer(t.Context(), "c"); err != nil || at.MountPoint != "" {
		t.Errorf("mounted at %q, %v", at.MountPoint, err)
	}
	check(t, c.Close())
	c = open(t, e, "c")
	dir, err = c.Mount(t.Context())
	check(t, err)
	if _, err := os.Stat(filepath.Join(dir, "bin")); err != nil {
		t.Error(err)
	}
	_, err = c.Unmount(t.Context())
	check(t, err)
	if n, err := e.Store().Raw().Mounted(c.LayerID()); err != nil || n != 0 {
		t.Errorf("mounted %d times, %v", n, err)
	}
	check(t, c.Remove(t.Context()))
}

func TestSettings(t *testing.T) {
	process := newEngine(t, "overlay")
	want := builder.Settings{Isolation: "chroot", Format: define.FormatDocker}
	c, err := process().Create(t.Context(), builder.CreateOptions{From: builder.FromOptions{Image: exampleBase()}, Name: "c", Settings: want})
	check(t, err)
	e := process()
	// Without the lock, which is held.
	d, err := e.InspectContainer(t.Context(), "c")
	check(t, err)
	if !reflect.DeepEqual(d.Settings, want) || d.Base.ID == "" || d.Image == nil || !d.Ours {
		t.Errorf("%+v", d)
	}
	check(t, c.Close())
	c = open(t, e, "c")
	if !reflect.DeepEqual(c.Settings(), want) {
		t.Errorf("%+v", c.Settings())
	}
	check(t, e.Prefer(c.Settings(), false))
	driver, err := e.Driver(t.Context())
	check(t, err)
	if driver.Name() != "chroot" {
		t.Errorf("isolation %s", driver.Name())
	}
	if err := process().Prefer(builder.Settings{Isolation: "nonsense"}, false); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("unknown isolation: %v", err)
	}
	check(t, c.Remove(t.Context()))
}
