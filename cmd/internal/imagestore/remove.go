package imagestore

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Removed tells what a removal did.
type Removed struct {
	// Untagged are the names that were taken from images.
	Untagged []string
	// Deleted are the images whose data is gone.
	Deleted []define.ImageID
}

// Target is an image to remove, as it was asked for.
type Target struct {
	ID define.ImageID
	// Name is the full name that was asked for, "" when it was asked for by
	// ID: then the image itself goes, and not only a name of it.
	Name string
}

// Remove removes an image. Asked for by one of several names, it loses only
// that name. Otherwise it is deleted, unless it is in use: by containers, or,
// asked for by ID, by several names. Force deletes it with all its names, and
// the containers of other tools that use it, unless they run.
func Remove(st *store.Store, t Target, force bool) (Removed, error) {
	raw := st.Raw()
	img, err := raw.Image(string(t.ID))
	if err != nil {
		return Removed{}, explain(t, err)
	}
	if img.ReadOnly {
		return Removed{}, fmt.Errorf("image %s: lies in a read-only store, from which nothing can be removed: %w", t.label(), define.ErrInUse)
	}
	if t.Name != "" && len(img.Names) > 1 {
		if err := raw.RemoveNames(img.ID, []string{t.Name}); err != nil {
			return Removed{}, fmt.Errorf("image %s: %w", t.label(), err)
		}
		return Removed{Untagged: []string{t.Name}}, nil
	}
	if t.Name == "" && len(img.Names) > 1 && !force {
		return Removed{}, fmt.Errorf("image %s has several names (%s): remove it by name, or with --force: %w",
			t.label(), strings.Join(img.Names, ", "), define.ErrInUse)
	}
	if err := freeFromContainers(raw, t, img.ID, force); err != nil {
		return Removed{}, err
	}
	if _, err := raw.DeleteImage(img.ID, true); err != nil {
		return Removed{}, explain(t, err)
	}
	return Removed{Untagged: img.Names, Deleted: []define.ImageID{t.ID}}, nil
}

func (t Target) label() string {
	if t.Name != "" {
		return t.Name
	}
	return t.ID.Short()
}

// freeFromContainers fails when containers use the image, naming them, or,
// when forced, deletes them.
func freeFromContainers(raw storage.Store, t Target, id string, force bool) error {
	users, err := containersOf(raw, id)
	if err != nil || len(users) == 0 {
		return err
	}
	var names []string
	for _, c := range users {
		names = append(names, containerLabel(c))
	}
	if !force {
		them := "them"
		if len(names) == 1 {
			them = "it"
		}
		return fmt.Errorf("image %s: used by %s; remove %s first, or use --force: %w", t.label(), strings.Join(names, ", "), them, define.ErrInUse)
	}
	for _, c := range users {
		// A mounted layer belongs to a container that runs, or that
		// somebody is working in.
		if n, err := raw.Mounted(c.LayerID); err == nil && n > 0 {
			return fmt.Errorf("image %s: used by %s, which is mounted; end it first: %w", t.label(), containerLabel(c), define.ErrInUse)
		}
	}
	for _, c := range users {
		if err := raw.DeleteContainer(c.ID); err != nil && !errors.Is(err, storage.ErrContainerUnknown) && !errors.Is(err, storage.ErrNotAContainer) {
			return fmt.Errorf("image %s: removing %s: %w", t.label(), containerLabel(c), err)
		}
	}
	return nil
}

func containersOf(raw storage.Store, image string) ([]storage.Container, error) {
	all, err := raw.Containers()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(c storage.Container) bool { return c.ImageID != image }), nil
}

func containerLabel(c storage.Container) string {
	label := "container " + define.ImageID(c.ID).Short()
	if len(c.Names) > 0 {
		label += " (" + strings.Join(c.Names, ", ") + ")"
	}
	return label
}

// InUse reports whether a container, of any tool, uses the image.
func InUse(st *store.Store, id define.ImageID) (bool, error) {
	users, err := containersOf(st.Raw(), string(id))
	return len(users) > 0, err
}

func explain(t Target, err error) error {
	switch {
	case errors.Is(err, storage.ErrImageUnknown), errors.Is(err, storage.ErrNotAnImage): // looking up and deleting differ
		return fmt.Errorf("image %s: %w in the store", t.label(), define.ErrNotFound)
	case errors.Is(err, storage.ErrImageUsedByContainer), errors.Is(err, storage.ErrLayerUsedByContainer):
		return fmt.Errorf("image %s: a container has begun to use it: %w", t.label(), define.ErrInUse)
	}
	return fmt.Errorf("image %s: %w", t.label(), err)
}
