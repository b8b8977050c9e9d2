package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// SweepContainers collects what processes that were killed have left: a
// container that was put on other layers is finished, one that was being made
// or removed is removed, and so are locks of containers that are gone. It
// returns the names of the containers that were removed.
func (e *Engine) SweepContainers(ctx context.Context) (names []string, err error) {
	dir, err := e.containerDir()
	if err != nil {
		return nil, err
	}
	for _, f := range e.finishSwaps(ctx) {
		if !errors.Is(f.err, define.ErrNotFound) {
			err = errors.Join(err, f.err)
			continue
		}
		// Nothing is left of it.
		if _, lostErr := e.removeFailed(ctx, f.id); lostErr != nil {
			err = errors.Join(err, lostErr)
			continue
		}
		names = append(names, f.name)
	}
	list, listErr := e.store.Raw().Containers()
	if listErr != nil {
		return nil, errors.Join(err, fmt.Errorf("listing containers: %w", listErr))
	}
	for i := range list {
		rec := &list[i]
		if !e.halfMade(rec) {
			continue
		}
		gone, removeErr := e.removeHalfMade(ctx, rec)
		if gone {
			names = append(names, containerTitle(rec))
		}
		err = errors.Join(err, removeErr)
	}
	return names, errors.Join(err, e.sweepLocks(ctx, dir))
}

// halfMade reports whether a container is ours and has no state: that is
// written last and removed first.
func (e *Engine) halfMade(rec *storage.Container) bool {
	if rec.Metadata != containerMetadata {
		return false
	}
	_, err := os.Lstat(e.statePath(rec.ID))
	return errors.Is(err, fs.ErrNotExist)
}

func (e *Engine) removeHalfMade(ctx context.Context, rec *storage.Container) (gone bool, err error) {
	lock, err := e.lockContainer(ctx, rec.ID, containerTitle(rec))
	if errors.Is(err, define.ErrInUse) {
		return false, nil // its process is at it
	}
	if err != nil {
		return false, err
	}
	if !e.halfMade(rec) {
		return false, lock.release()
	}
	if err := e.deleteContainer(rec.ID, containerTitle(rec), rec.LayerID); err != nil {
		return false, errors.Join(err, lock.release())
	}
	return true, lock.remove()
}

// sweepLocks removes the locks of containers that are gone, and notes that
// were not finished.
func (e *Engine) sweepLocks(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking for leftovers of containers: %w", err)
	}
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), lockSuffix)
		if !ok {
			if id, ok = strings.CutSuffix(entry.Name(), swapSuffix+newSuffix); !ok {
				continue
			}
		}
		if _, err := e.store.Raw().Container(id); !errors.Is(err, storage.ErrContainerUnknown) {
			continue
		}
		lock, err := e.lockContainer(ctx, id, id)
		if errors.Is(err, define.ErrInUse) {
			continue
		}
		if err != nil {
			return err
		}
		// A process that had it may have made the container meanwhile, or died
		// on the way.
		_, recErr := e.store.Raw().Container(id)
		_, noteErr := os.Lstat(filepath.Join(dir, id+swapSuffix))
		if !errors.Is(recErr, storage.ErrContainerUnknown) || noteErr == nil {
			err = lock.release()
		} else {
			_ = os.Remove(filepath.Join(dir, id+swapSuffix+newSuffix))
			err = lock.remove()
		}
		if err != nil {
			return fmt.Errorf("removing leftovers of containers: %w", err)
		}
	}
	return nil
}

// failedSwap is one that cannot be finished.
type failedSwap struct {
	id, name string
	err      error
}

// is reports whether the user may have named the container so.
func (f *failedSwap) is(nameOrID string) bool {
	return nameOrID == f.name || len(nameOrID) > 2 && strings.HasPrefix(f.id, nameOrID)
}

// finishSwaps carries out what processes that died have left, and returns
// what was not possible.
func (e *Engine) finishSwaps(ctx context.Context) (failed []failedSwap) {
	dir, err := e.containerDir()
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), swapSuffix)
		if !ok {
			continue
		}
		if unix.Access(filepath.Join(dir, entry.Name()), unix.F_OK) != nil {
			continue // done meanwhile: its lock is for others
		}
		lock, err := e.lockContainer(ctx, id, id)
		if err != nil {
			continue // its process is at it
		}
		name, err := e.finishSwap(id)
		if err != nil {
			failed = append(failed, failedSwap{id, name, err})
		}
		_ = lock.release()
	}
	return failed
}

// finishSwap carries out what the note of a container says, if there is one.
// The container is locked.
func (e *Engine) finishSwap(id string) (name string, err error) {
	note, err := e.swapNote(id)
	if err != nil {
		return id, err
	}
	b, err := os.ReadFile(note)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return id, err
	}
	p := &pendingSwap{}
	if err := json.Unmarshal(b, p); err != nil || p.ID != id {
		return id, fmt.Errorf("container %s: the note of its change is damaged: remove it with rm: %w", id, define.ErrInvalid)
	}
	_, err = e.carryOut(p)
	if errors.Is(err, storage.ErrImageUnknown) || errors.Is(err, storage.ErrLayerUnknown) {
		err = fmt.Errorf("container %s: the image that held its files was removed: remove it with rm: %w", p.Name, define.ErrNotFound)
	}
	return p.Name, err
}

// forgetSwap gives up the change of a container that is to be removed.
func (e *Engine) forgetSwap(id string) error {
	note, err := e.swapNote(id)
	if err == nil {
		err = os.Remove(note)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeFailed removes a container of which nothing is left but the note of a
// change that cannot be finished; "" when there is none.
func (e *Engine) removeFailed(ctx context.Context, nameOrID string) (string, error) {
	for _, f := range e.finishSwaps(ctx) {
		if !f.is(nameOrID) {
			continue
		}
		lock, err := e.lockContainer(ctx, f.id, f.name)
		if err != nil {
			return "", err
		}
		if err := e.forgetSwap(f.id); err != nil {
			return "", errors.Join(err, lock.release())
		}
		return f.id, lock.remove()
	}
	return "", nil
}
