package imagebuildah_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// --from names a container first: its present root, open changes included.
func TestCopyFromContainer(t *testing.T) {
	e, _ := openEngine(t)
	ctx := context.Background()
	source, err := e.Create(ctx, builder.CreateOptions{From: builder.FromOptions{Image: busybox()}, Name: "primitive-source"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := imagebuildah.Run(ctx, source, imagebuildah.CommandOptions{Args: []string{"sh", "-c", "echo open > /open; chown 3:4 /open"}}); err != nil {
		t.Fatal(err)
	}
	c := from(t, e, busybox())
	_, err = imagebuildah.Copy(ctx, c, imagebuildah.CopyOptions{From: "primitive-source", Sources: []string{"open"}, Dest: "/"})
	if !errors.Is(err, define.ErrInUse) {
		t.Errorf("a container in use: %v", err)
	}
	// Within one container.
	if _, err := imagebuildah.Copy(ctx, source, imagebuildah.CopyOptions{From: source.Name(), Sources: []string{"open"}, Dest: "/again"}); err != nil {
		t.Error(err)
	}
	if err := errors.Join(source.Keep(ctx, layer.FreezeOptions{}), source.Save(ctx), source.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"primitive-source", source.ID(), source.ID()[:12]} {
		if _, err := imagebuildah.Copy(ctx, c, imagebuildah.CopyOptions{From: name, Sources: []string{"open", "again"}, Dest: "/" + name + "/"}); err != nil {
			t.Error(err)
		}
		if got := read(t, c, "/"+name+"/again"); got != "open\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	for i, m := range []string{"type=bind,from=primitive-source,target=/m", "type=bind,from=primitive-source,source=/,target=/m,rw"} {
		_, err := imagebuildah.Run(ctx, c, imagebuildah.CommandOptions{Args: []string{"sh", "-c", "cat /m/open > /got" + strconv.Itoa(i) + "; echo x > /m/open || true"},
			Mounts: []string{m}})
		if got := read(t, c, "/got"+strconv.Itoa(i)); err != nil || got != "open\n" {
			t.Errorf("%s: %v, %q", m, err, got)
		}
	}
	if source, err = e.OpenContainer(ctx, "primitive-source"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, source, "/open"); got != "open\n" {
		t.Errorf("the source has become %q", got)
	}
	if err := source.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

// Cached steps of a stored container, each by a process of its own.
func TestCachedStored(t *testing.T) {
	e, _ := openEngine(t)
	ctx := context.Background()
	dir := write(t, t.TempDir(), "f=stored")
	for round, want := range []bool{false, true} {
		c, err := e.Create(ctx, builder.CreateOptions{From: builder.FromOptions{Image: busybox()}, Name: "primitive-cached"})
		if err != nil {
			t.Fatal(err)
		}
		step := func(f func() (bool, error)) {
			t.Helper()
			cached, err := f()
			if cached != want {
				t.Errorf("round %d: cached %v", round, cached)
			}
			if err = errors.Join(err, c.Save(ctx), c.Close()); err != nil {
				t.Fatal(err)
			}
			if c, err = e.OpenContainer(ctx, "primitive-cached"); err != nil {
				t.Fatal(err)
			}
		}
		o := imagebuildah.StepOptions{Cached: true}
		step(func() (bool, error) {
			done, err := imagebuildah.Copy(ctx, c, imagebuildah.CopyOptions{StepOptions: o, Sources: []string{dir + "/f"}, Dest: "/f"})
			return err == nil && done.Cached, err
		})
		step(func() (bool, error) {
			done, err := imagebuildah.Run(ctx, c, imagebuildah.CommandOptions{StepOptions: o, Args: []string{"cp", "/f", "/g"}})
			return err == nil && done.Cached, err
		})
		if got := read(t, c, "/g"); got != "stored" || c.Dirty() {
			t.Errorf("g: %q, dirty %v", got, c.Dirty())
		}
		if h := c.Image.History; len(h) < 2 || h[len(h)-1].CreatedBy != "RUN cp /f /g" || h[len(h)-1].EmptyLayer {
			t.Errorf("history %+v", h)
		}
		if err := c.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCopyTimestamp(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, "scratch")
	at := time.Unix(1000, 0)
	dir := write(t, t.TempDir(), "d/f=F")
	_, err := imagebuildah.Copy(context.Background(), c, imagebuildah.CopyOptions{StepOptions: imagebuildah.StepOptions{Timestamp: &at},
		Sources: []string{dir}, Dest: "/new"})
	if err != nil {
		t.Fatal(err)
	}
	err = c.View(context.Background(), func(root *copier.Root) error {
		for _, name := range []string{"new", "new/d", "new/d/f"} {
			if info, err := root.Stat(name, false); err != nil || !info.ModTime.Equal(at) {
				t.Errorf("%s: %v %v", name, info.ModTime, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Link makes a layer of its own that follows no link of the container.
func TestCopyLink(t *testing.T) {
	e, _ := openEngine(t)
	ctx := context.Background()
	dir := write(t, t.TempDir(), "f=F")
	c, err := e.Create(ctx, builder.CreateOptions{From: builder.FromOptions{Image: busybox()}, Name: "primitive-link"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := imagebuildah.Run(ctx, c, imagebuildah.CommandOptions{Args: []string{"sh", "-c", "mkdir /to; ln -s /to /l"}}); err != nil {
		t.Fatal(err)
	}
	done, err := imagebuildah.Copy(ctx, c, imagebuildah.CopyOptions{Sources: []string{dir + "/f"}, Dest: "/l/", Link: true})
	if err != nil || done.Cached || done.Digest == "" {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := errors.Join(c.Keep(ctx, layer.FreezeOptions{}), c.Save(ctx), c.Close()); err != nil {
		t.Fatal(err)
	}
	if c, err = e.OpenContainer(ctx, "primitive-link"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "/l/f") + read(t, c, "/to/f"); got != "F-" || c.Dirty() {
		t.Errorf("%q, dirty %v", got, c.Dirty())
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}
