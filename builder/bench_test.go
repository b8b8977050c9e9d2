package builder_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/tests/testenv"
)

// What a command costs beside the start of its process: each iteration opens
// the store anew.
func BenchmarkStored(b *testing.B) {
	dir, err := os.MkdirTemp(scratch, "store-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { testenv.RemoveStore(dir) })
	process := func(f func(*builder.Engine) error) {
		b.Helper()
		e, err := builder.Open(b.Context(), builder.Options{
			Store:    store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "overlay"},
			Rootless: worker.Rootless, SingleID: worker.SingleID,
		})
		if err == nil {
			err = f(e)
			if err2 := e.Close(); err == nil {
				err = err2
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	on := func(f func(*builder.Container) error) {
		process(func(e *builder.Engine) error {
			c, err := e.OpenContainer(b.Context(), "c")
			if err != nil {
				return err
			}
			if err := f(c); err != nil {
				return err
			}
			return c.Close()
		})
	}
	base := ""
	process(func(e *builder.Engine) error {
		c, err := e.From(b.Context(), builder.FromOptions{Image: exampleBase()})
		if err != nil {
			return err
		}
		base = string(c.Base.ID)
		return c.Close()
	})
	n := 0
	b.Run("from", func(b *testing.B) {
		for b.Loop() {
			n++
			process(func(e *builder.Engine) error {
				c, err := e.Create(b.Context(), builder.CreateOptions{From: builder.FromOptions{Image: base}, Name: fmt.Sprint("n", n)})
				if err != nil {
					return err
				}
				return c.Close()
			})
		}
	})
	b.Run("rm", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			process(func(e *builder.Engine) error {
				c, err := e.Create(b.Context(), builder.CreateOptions{From: builder.FromOptions{Image: base}, Name: "r"})
				if err != nil {
					return err
				}
				return c.Close()
			})
			b.StartTimer()
			process(func(e *builder.Engine) error { _, err := e.RemoveContainer(b.Context(), "r"); return err })
		}
	})
	process(func(e *builder.Engine) error {
		c, err := e.Create(b.Context(), builder.CreateOptions{From: builder.FromOptions{Image: base}, Name: "c"})
		if err != nil {
			return err
		}
		return c.Close()
	})
	b.Run("config", func(b *testing.B) {
		for b.Loop() {
			on(func(c *builder.Container) error {
				c.Image.SetEnv("A", "b")
				return c.Save(b.Context())
			})
		}
	})
	b.Run("run-true", func(b *testing.B) {
		for b.Loop() {
			on(func(c *builder.Container) error {
				if err := c.Run(b.Context(), builder.Run{Args: []string{"true"}}); err != nil {
					return err
				}
				return c.Keep(b.Context(), layer.FreezeOptions{})
			})
		}
	})
	files := b.TempDir()
	for i := range 20_000 {
		sub := filepath.Join(files, fmt.Sprint(i/100))
		if i%100 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), make([]byte, 4096), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	on(func(c *builder.Container) error {
		root, err := copier.OpenRoot(files)
		if err != nil {
			return err
		}
		defer root.Close()
		sel, err := root.Select(b.Context(), copier.Select{Patterns: []string{"."}})
		if err != nil {
			return err
		}
		if err := c.Add(b.Context(), builder.Add{Dest: "/f/", Selections: []*copier.Selection{sel}}); err != nil {
			return err
		}
		return c.Keep(b.Context(), layer.FreezeOptions{})
	})
	b.Run("commit-20000", func(b *testing.B) {
		for b.Loop() {
			on(func(c *builder.Container) error {
				_, err := c.Commit(b.Context(), builder.CommitOptions{})
				return err
			})
		}
	})
}
