package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// Leftovers counts what a Sweep removed.
type Leftovers struct {
	Workspaces int
	Bytes      int64
}

// Sweep collects workspaces whose process is dead. It is cheap when there
// are none, and is run at the start of each build: one directory is read, and
// each lock file in it tried; layers are looked at only when a lock is free.
func (s *Store) Sweep(ctx context.Context) (Leftovers, error) {
	var sum Leftovers
	state, err := s.StateDir()
	if err != nil {
		return sum, err
	}
	dir := filepath.Join(state, "work")
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return sum, nil
		}
		return sum, fmt.Errorf("looking for leftovers: %w", err)
	}
	var layers []storage.Layer
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), lockSuffix)
		if !ok || !strings.HasPrefix(name, workPrefix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		lock := takeDead(filepath.Join(dir, e.Name()))
		if lock == nil {
			continue
		}
		if layers == nil {
			if layers, err = s.raw.Layers(); err != nil {
				lock.Close()
				return sum, fmt.Errorf("looking for leftovers: %w", err)
			}
		}
		n, err := s.collect(dir, name, layers)
		sum.Bytes += n
		if err == nil {
			err = os.Remove(lock.Name())
		}
		lock.Close()
		if err != nil {
			errs = append(errs, fmt.Errorf("removing the leftovers of %s: %w", name, err))
			continue
		}
		sum.Workspaces++
	}
	return sum, errors.Join(errs...)
}

// takeDead locks the lock file of a workspace, or returns nil when its
// process lives or another sweeper has it.
func takeDead(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	if flockRetry(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !sameFile(f, path) {
		f.Close()
		return nil
	}
	return f
}

// collect removes the scratch directories and the layers of a dead workspace
// and returns the bytes that its scratch directories took.
func (s *Store) collect(dir, name string, layers []storage.Layer) (int64, error) {
	n, err := RemoveTree(nil, filepath.Join(dir, name))
	if err != nil {
		return n, err
	}
	for i := range layers {
		if !ownedBy(&layers[i], name) {
			continue
		}
		id := layers[i].ID
		if s.raw.GraphDriverName() == "overlay" {
			if home, err := s.LayerHome(id); err == nil {
				m, err := RemoveTree(nil, filepath.Join(home, scratchName))
				n += m
				if err != nil {
					return n, err
				}
			}
		}
		// One that was mounted when its process died is counted as mounted.
		_, _ = s.raw.Unmount(id, true)
		if err := s.raw.DeleteLayer(id); err != nil && !errors.Is(err, storage.ErrNotALayer) {
			return n, err
		}
	}
	return n, nil
}

// ownedBy reports whether the layer carries a name of the workspace.
func ownedBy(l *storage.Layer, workspace string) bool {
	for _, n := range l.Names {
		if strings.HasPrefix(n, workspace+".") {
			return true
		}
	}
	return false
}
