package builder_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/tests/testenv"
	"go.podman.io/storage"
)

// newEngine opens a store of the test's own. Calling the result opens it
// again, as another process would.
func newEngine(t *testing.T, driver string) func() *builder.Engine {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { testenv.RemoveStore(dir) })
	return func() *builder.Engine {
		e, err := builder.Open(t.Context(), builder.Options{
			Store:    store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: driver},
			Rootless: worker.Rootless, SingleID: worker.SingleID, PID: 4711,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, e *builder.Engine, name string) *builder.Container {
	t.Helper()
	c, err := e.Create(t.Context(), builder.CreateOptions{From: builder.FromOptions{Image: exampleBase()}, Name: name})
	check(t, err)
	return c
}

func open(t *testing.T, e *builder.Engine, name string) *builder.Container {
	t.Helper()
	c, err := e.OpenContainer(t.Context(), name)
	check(t, err)
	return c
}

func sh(t *testing.T, c *builder.Container, script string) {
	t.Helper()
	check(t, c.Run(t.Context(), builder.Run{Args: []string{"sh", "-ec", script}}))
}

// keep ends work on the container as a command does.
func keep(t *testing.T, c *builder.Container) {
	t.Helper()
	check(t, c.Keep(t.Context(), layer.FreezeOptions{}))
	check(t, c.Save(t.Context()))
	check(t, c.Close())
}

// tree lists a container's files: kind and mode, names of one file as one,
// content.
func tree(t *testing.T, c *builder.Container) string {
	t.Helper()
	var b strings.Builder
	check(t, c.View(t.Context(), func(root *copier.Root) error {
		dir := fmt.Sprintf("/proc/self/fd/%d", root.File().Fd())
		return filepath.WalkDir(dir+"/.", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(p, dir)
			if name == "/." {
				return nil
			}
			fmt.Fprintf(&b, "%s %s", fi.Mode(), name)
			if fi.Mode().IsRegular() && fi.Size() < 100 {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, " %q", data)
			}
			fmt.Fprintln(&b)
			return nil
		})
	}))
	return b.String()
}

func TestStoredLife(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			process := newEngine(t, driver)
			c := create(t, process(), "")
			if !strings.HasSuffix(c.Name(), "working-container") || len(c.ID()) != 64 {
				t.Errorf("name %q, ID %q", c.Name(), c.ID())
			}
			name := c.Name()
			before := tree(t, c)
			keep(t, c)

			second := create(t, process(), "")
			if second.Name() != name+"-1" {
				t.Errorf("the second container's name is %q", second.Name())
			}
			check(t, second.Remove(t.Context()))

			c = open(t, process(), name)
			if c.Dirty() && driver == "overlay" {
				t.Error("a new container has changes")
			}
			sh(t, c, "mkdir /d; echo one >/d/f; ln /d/f /d/g; ln -s f /d/l; chmod 4755 /d/f; rm /bin/true")
			c.Image.SetEnv("COLOUR", "blue")
			keep(t, c)

			c = open(t, process(), c.ID()[:20])
			if v, _ := c.Image.Env("COLOUR"); v != "blue" || !c.Dirty() {
				t.Errorf("COLOUR=%q, dirty %t", v, c.Dirty())
			}
			sh(t, c, `test "$COLOUR" = blue; test ! -e /bin/true; test /d/f -ef /d/g; echo two >/d/two; mv /d/two /d/2`)
			keep(t, c)

			c = open(t, process(), name)
			first, err := c.Commit(t.Context(), builder.CommitOptions{Names: []string{"localhost/first:latest"}})
			check(t, err)
			after := tree(t, c)
			sh(t, c, "test -e /d/2; rm -r /d; mkdir /d; echo three >/d/3")
			keep(t, c)

			// What was committed does not change with the container.
			img, err := process().From(t.Context(), builder.FromOptions{Image: string(first.ID)})
			check(t, err)
			if got := tree(t, img); got != after {
				t.Errorf("committed tree:\n%s\nof the container:\n%s", got, after)
			}
			if after == before {
				t.Error("the trees are equal")
			}
			stored, err := image.Load(process().Store(), first.ID)
			check(t, err)
			if len(stored.DiffIDs) != 2 {
				t.Errorf("%d layers, want the base's and one", len(stored.DiffIDs))
			}
			check(t, img.Close())

			c = open(t, process(), name)
			_, err = c.Commit(t.Context(), builder.CommitOptions{Names: []string{"localhost/second:latest"}})
			check(t, err)
			after = tree(t, c)
			check(t, c.Remove(t.Context()))
			img, err = process().From(t.Context(), builder.FromOptions{Image: "localhost/second"})
			check(t, err)
			if got := tree(t, img); got != after {
				t.Errorf("committed tree:\n%s\nof the container:\n%s", got, after)
			}
			check(t, img.Close())
			if list, err := process().Containers(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("left: %v, %v", list, err)
			}
		})
	}
}

func TestStoredErrors(t *testing.T) {
	process := newEngine(t, "overlay")
	c := create(t, process(), "one")
	for _, k := range []struct {
		what string
		do   func(*builder.Engine) error
		want error
		text string
	}{
		{"in use", func(e *builder.Engine) error { _, err := e.OpenContainer(t.Context(), "one"); return err }, define.ErrInUse, "process 4711"},
		{"remove in use", func(e *builder.Engine) error { _, err := e.RemoveContainer(t.Context(), "one"); return err }, define.ErrInUse, "process 4711"},
		{"unknown", func(e *builder.Engine) error { _, err := e.OpenContainer(t.Context(), "onw"); return err }, define.ErrNotFound, "there is one"},
		{"name taken", func(e *builder.Engine) error {
			_, err := e.Create(t.Context(), builder.CreateOptions{Name: "one"})
			return err
		}, define.ErrInvalid, "exists already"},
		{"bad name", func(e *builder.Engine) error {
			_, err := e.Create(t.Context(), builder.CreateOptions{Name: "a/b"})
			return err
		}, define.ErrInvalid, "want letters"},
	} {
		err := k.do(process())
		if !errors.Is(err, k.want) || !strings.Contains(err.Error(), k.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", k.what, err)
		}
	}
	check(t, c.Close())
	c = open(t, process(), "one")
	check(t, c.Rename(t.Context(), "two"))
	keep(t, c)
	check(t, open(t, process(), "two").Close())

	// Another program's container is left alone, but can be removed.
	e := process()
	other, err := e.Store().Raw().CreateContainer("", []string{"other"}, "", "", "", &storage.ContainerOptions{})
	check(t, err)
	if _, err := e.OpenContainer(t.Context(), "other"); !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("another program's: %v", err)
	}
	list, err := e.Containers(t.Context())
	check(t, err)
	if len(list) != 2 || list[0].Name != "two" || !list[0].Ours || list[1].Ours {
		t.Errorf("listed: %+v", list)
	}
	if id, err := e.RemoveContainer(t.Context(), "other"); err != nil || id != other.ID {
		t.Errorf("removed %s, %v", id, err)
	}

	// A damaged state is said, and can be removed.
	path := filepath.Join(e.Store().Raw().GraphRoot(), "overlay-containers", c.ID(), "userdata", "strata.json")
	check(t, os.WriteFile(path, []byte("{"), 0o600))
	if _, err := e.OpenContainer(t.Context(), "two"); !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
	_, err = e.RemoveContainer(t.Context(), "two")
	check(t, err)
}

// Layers of a stored container, as cached steps make them.
func TestStoredLayered(t *testing.T) {
	process := newEngine(t, "overlay")
	c := create(t, process(), "c")
	id, first := c.ID(), c.LayerID()
	sh(t, c, "echo open >/open")
	keep(t, c)

	c = open(t, process(), "c")
	check(t, c.Layered(t.Context(), layer.FreezeOptions{}))
	sh(t, c, "test -e /open; echo 1 >/1")
	_, err := c.Seal(t.Context(), layer.FreezeOptions{})
	check(t, err)
	check(t, c.Save(t.Context()))
	sh(t, c, "echo after >/after")
	keep(t, c)
	if c.ID() != id || c.LayerID() == first {
		t.Errorf("ID %s, was %s; layer %s, was %s", c.ID(), id, c.LayerID(), first)
	}

	c = open(t, process(), "c")
	sh(t, c, "test -e /open; test -e /1; test -e /after")
	check(t, c.Layered(t.Context(), layer.FreezeOptions{}))
	sh(t, c, "echo 2 >/2")
	top, err := c.Seal(t.Context(), layer.FreezeOptions{})
	check(t, err)
	info, err := top.Wait(t.Context())
	check(t, err)
	check(t, c.Save(t.Context()))
	check(t, c.Close())
	e := process()
	if images, err := e.Store().Raw().Images(); err != nil || len(images) != 2 {
		t.Errorf("%d images, want the base and the stand-in: %v", len(images), err)
	}
	c = open(t, e, "c")
	img, err := c.Commit(t.Context(), builder.CommitOptions{SquashAll: true})
	check(t, err)
	stored, err := image.Load(e.Store(), img.ID)
	check(t, err)
	if len(stored.DiffIDs) != 1 {
		t.Errorf("%d layers, want one", len(stored.DiffIDs))
	}
	check(t, c.Remove(t.Context()))
	if _, err := e.Store().Raw().Layer(string(info.ID)); err != nil {
		t.Errorf("the layer that a step made has gone with the container: %v", err)
	}
	if images, err := e.Store().Raw().Images(); err != nil || len(images) != 2 {
		t.Errorf("%d images, want the base and what was committed: %v", len(images), err)
	}
}

// A process that dies while it puts a container on new layers loses nothing.
func TestStoredSwapFinished(t *testing.T) {
	process := newEngine(t, "overlay")
	c := create(t, process(), "c")
	check(t, c.Layered(t.Context(), layer.FreezeOptions{}))
	sh(t, c, "echo 1 >/1")
	_, err := c.Seal(t.Context(), layer.FreezeOptions{})
	check(t, err)
	check(t, builder.InterruptSwap(t.Context(), c))
	e := process()
	if _, err := e.Store().Raw().Container("c"); !errors.Is(err, storage.ErrContainerUnknown) {
		t.Fatalf("the container is there: %v", err)
	}
	check(t, c.Close())
	c = open(t, e, "c")
	sh(t, c, "test -e /1")
	keep(t, c)
}

// What is mounted by the store is one with what commands see.
func TestStoredMounted(t *testing.T) {
	process := newEngine(t, "overlay")
	c := create(t, process(), "c")
	keep(t, c)
	e := process()
	dir, err := e.Store().Raw().Mount(c.ID(), "")
	check(t, err)
	c = open(t, process(), "c")
	check(t, os.WriteFile(filepath.Join(dir, "outside"), []byte("x"), 0o644))
	sh(t, c, "test -e /outside; echo in >/inside")
	keep(t, c)
	if _, err := os.Stat(filepath.Join(dir, "inside")); err != nil {
		t.Error(err)
	}
	for _, point := range []string{"etc/hosts", "etc/resolv.conf", "etc/hostname"} {
		if _, err := os.Lstat(filepath.Join(dir, point)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the step's mount point /%s is left: %v", point, err)
		}
	}
	c = open(t, process(), "c")
	if err := c.Layered(t.Context(), layer.FreezeOptions{}); !errors.Is(err, define.ErrInUse) {
		t.Errorf("layers of a mounted container: %v", err)
	}
	img, err := c.Commit(t.Context(), builder.CommitOptions{})
	check(t, err)
	check(t, c.Remove(context.Background()))
	got, err := process().From(t.Context(), builder.FromOptions{Image: string(img.ID)})
	check(t, err)
	check(t, got.View(t.Context(), func(root *copier.Root) error {
		_, err1 := root.Stat("/inside", false)
		_, err2 := root.Stat("/outside", false)
		return errors.Join(err1, err2)
	}))
	check(t, got.Close())
}

// FuzzState: a damaged state file is an error, in one line.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Image":{"Config":{"Env":["A=b"]}},"Defaults":{"Volumes":[{"Source":"/a","Target":"/b"}]}}`))
	f.Add([]byte(`{"Version":2,"Image":{}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := builder.DecodeState(b); err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q", err)
		}
	})
}
