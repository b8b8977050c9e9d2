package builder_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
)

// half puts the container c on new layers up to the worst moment.
func half(t *testing.T, process func() *builder.Engine) *builder.Container {
	t.Helper()
	c := create(t, process(), "c")
	check(t, c.Layered(t.Context(), layer.FreezeOptions{}))
	sh(t, c, "echo 1 >/1")
	_, err := c.Seal(t.Context(), layer.FreezeOptions{})
	check(t, err)
	check(t, builder.InterruptSwap(t.Context(), c))
	check(t, c.Close())
	return c
}

func containersDir(t *testing.T, e *builder.Engine) string {
	t.Helper()
	state, err := e.Store().StateDir()
	check(t, err)
	return filepath.Join(state, "containers")
}

func list(t *testing.T, e *builder.Engine) string {
	t.Helper()
	infos, err := e.Containers(t.Context())
	check(t, err)
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

// A container that is between two chains is listed, and stays removed.
func TestSwapListedAndRemoved(t *testing.T) {
	process := newEngine(t, "overlay")
	c := half(t, process)
	e := process()
	if got := list(t, e); got != "c" {
		t.Errorf("the list is %q", got)
	}

	// Killed before the container was deleted: what was written down is done
	// before anything else is, and does not undo what comes later.
	check(t, os.WriteFile(filepath.Join(containersDir(t, e), c.ID()+".swap"), []byte("{}"), 0o600))
	if _, err := process().OpenContainer(t.Context(), "c"); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("a damaged note: %v", err)
	}
	if id, err := process().RemoveContainer(t.Context(), "c"); err != nil || id != c.ID() {
		t.Errorf("removing it: %q, %v", id, err)
	}
	if got := list(t, process()); got != "" {
		t.Errorf("after its removal the list is %q", got)
	}
}

// When the image that holds a container's files is gone, the container is
// lost; rm ends that, and others are not affected.
func TestSwapImageGone(t *testing.T) {
	process := newEngine(t, "overlay")
	half(t, process)
	e := process()
	images, err := e.Store().Raw().Images()
	check(t, err)
	for i := range images {
		if len(images[i].Names) == 0 {
			_, err := e.Store().Raw().DeleteImage(images[i].ID, true)
			check(t, err)
		}
	}
	if _, err := e.OpenContainer(t.Context(), "other"); !errors.Is(err, define.ErrNotFound) || strings.Contains(err.Error(), "was removed") {
		t.Errorf("another container: %v", err)
	}
	if _, err := e.OpenContainer(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "remove it with rm") {
		t.Errorf("the container: %v", err)
	}
	if _, err := e.RemoveContainer(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	if _, err := e.OpenContainer(t.Context(), "c"); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("after rm: %v", err)
	}
}

// What died while it made or removed a container is said, and collected; the
// containers of other programs and those in use are not.
func TestSweepContainers(t *testing.T) {
	process := newEngine(t, "overlay")
	e := process()
	keep(t, create(t, e, "good"))
	c := create(t, e, "torn")
	keep(t, c)
	busy := create(t, e, "busy")
	foreign, err := e.Store().Raw().CreateContainer("", []string{"foreign"}, string(busy.Base.ID), "", "", nil)
	check(t, err)
	for _, id := range []string{c.ID(), busy.ID()} {
		dir, err := e.Store().Raw().ContainerDirectory(id)
		check(t, err)
		check(t, os.Remove(filepath.Join(dir, "strata.json")))
	}
	check(t, os.WriteFile(filepath.Join(containersDir(t, e), strings.Repeat("a", 64)+".lock"), nil, 0o600))

	other := process()
	if _, err := other.OpenContainer(t.Context(), "torn"); err == nil || !strings.Contains(err.Error(), "remove it with rm") {
		t.Errorf("opening it: %v", err)
	}
	names, err := other.SweepContainers(t.Context())
	if err != nil || strings.Join(names, " ") != "torn" {
		t.Errorf("swept %q, %v", names, err)
	}
	check(t, busy.Close())
	names, err = other.SweepContainers(t.Context())
	if err != nil || strings.Join(names, " ") != "busy" {
		t.Errorf("then swept %q, %v", names, err)
	}
	if got := list(t, other); got != "good foreign" && got != "foreign good" {
		t.Errorf("left is %q", got)
	}
	entries, err := os.ReadDir(containersDir(t, e))
	if err != nil || len(entries) != 1 {
		t.Errorf("files are left: %v, %v", entries, err)
	}
	check(t, other.Store().Raw().DeleteContainer(foreign.ID))
}
