package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"go.podman.io/storage"
	"go.podman.io/storage/pkg/idtools"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// lateStore is a store that the library opens when something is asked for that
// it alone knows. Opening reads the records of all images, 7 ms for 1,000 of
// them, and most builds whose steps are all cached need two records and
// nothing else: those, Image and ImageBigData find by themselves.
//
// What the library would refuse, it refuses later: each method that needs it
// returns the error of opening.
type lateStore struct {
	so     types.StoreOptions
	images imageList

	once   sync.Once
	raw    storage.Store
	err    error
	opened atomic.Bool
}

var _ storage.Store = (*lateStore)(nil)

// openedFile is the file in the state directory that tells of the latest
// opening by the library that succeeded, with which options.
const openedFile = "opened"

// openLate returns a store to open later, when one with these options was
// opened before, by a process that could do what this one can, and
// nothing in it differs from the usual: the library's driver and records in
// the graph root alone.
func openLate(so types.StoreOptions) (*lateStore, bool) {
	if so.GraphDriverName != "overlay" && so.GraphDriverName != "" || so.ImageStore != "" || so.TransientStore || furtherStores(so.GraphDriverOptions) {
		return nil, false
	}
	before, err := os.ReadFile(filepath.Join(so.GraphRoot, "strata", openedFile))
	if err != nil || string(before) != openedWith(so) {
		return nil, false
	}
	l := &lateStore{so: so, images: imageList{dir: filepath.Join(so.GraphRoot, "overlay-images")}}
	for _, path := range []string{so.RunRoot, filepath.Join(so.GraphRoot, "overlay"), filepath.Join(so.GraphRoot, "overlay-layers"), l.images.dir} {
		if unix.Access(path, unix.R_OK|unix.W_OK|unix.X_OK) != nil {
			return nil, false
		}
	}
	if _, err := l.images.text(); err != nil {
		return nil, false
	}
	return l, true
}

// openedWith is what openedFile says of these options.
func openedWith(so types.StoreOptions) string {
	text, err := json.Marshal(so)
	if err != nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d %t %s", os.Geteuid(), unshare.IsRootless(), text)
	return hex.EncodeToString(h.Sum(nil))
}

// noteOpened writes openedFile, when it says something else; a help, whose
// errors are not told.
func noteOpened(state string, so types.StoreOptions) {
	path, now := filepath.Join(state, openedFile), openedWith(so)
	if before, err := os.ReadFile(path); err == nil && string(before) == now {
		return
	}
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if os.WriteFile(tmp, []byte(now), 0o600) != nil || os.Rename(tmp, path) != nil {
		_ = os.Remove(tmp)
	}
}

// furtherStores reports whether the options name stores beside the graph root.
func furtherStores(options []string) bool {
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		if value != "" && (strings.HasSuffix(key, "imagestore") || strings.HasSuffix(key, "additionallayerstore")) {
			return true
		}
	}
	return false
}

// open is the library's store.
func (l *lateStore) open() (storage.Store, error) {
	l.once.Do(func() {
		if l.raw, l.err = storage.GetStore(l.so); l.err != nil {
			l.err = openError(l.so, l.err)
		}
		l.opened.Store(true)
		l.images.close()
	})
	return l.raw, l.err
}

func ask[T any](l *lateStore, f func(storage.Store) (T, error)) (T, error) {
	s, err := l.open()
	if err != nil {
		var none T
		return none, err
	}
	return f(s)
}

func do(l *lateStore, f func(storage.Store) error) error {
	s, err := l.open()
	if err != nil {
		return err
	}
	return f(s)
}

func (l *lateStore) RunRoot() string                { return l.so.RunRoot }
func (l *lateStore) GraphRoot() string              { return l.so.GraphRoot }
func (l *lateStore) ImageStore() string             { return l.so.ImageStore }
func (l *lateStore) TransientStore() bool           { return l.so.TransientStore }
func (l *lateStore) GraphDriverName() string        { return "overlay" }
func (l *lateStore) GraphOptions() []string         { return l.so.GraphDriverOptions }
func (l *lateStore) PullOptions() map[string]string { return l.so.PullOptions }
func (l *lateStore) UIDMap() []idtools.IDMap        { return l.so.UIDMap }
func (l *lateStore) GIDMap() []idtools.IDMap        { return l.so.GIDMap }

func (l *lateStore) Exists(id string) bool {
	s, err := l.open()
	return err == nil && s.Exists(id)
}

func (l *lateStore) Free() {
	if l.opened.Load() && l.err == nil {
		l.raw.Free()
	}
}

func (l *lateStore) Repair(report storage.CheckReport, options *storage.RepairOptions) []error {
	s, err := l.open()
	if err != nil {
		return []error{err}
	}
	return s.Repair(report, options)
}

func (l *lateStore) Image(id string) (*storage.Image, error) {
	if !l.opened.Load() {
		if rec, sure := l.images.find(id); rec != nil {
			return rec, nil
		} else if sure {
			return nil, fmt.Errorf("locating image with ID %q: %w", id, storage.ErrImageUnknown)
		}
	}
	return ask(l, func(s storage.Store) (*storage.Image, error) { return s.Image(id) })
}

func (l *lateStore) ImageBigData(id, key string) ([]byte, error) {
	if !l.opened.Load() && key != "" {
		if rec, _ := l.images.find(id); rec != nil {
			if data, err := os.ReadFile(filepath.Join(l.images.dir, rec.ID, BigDataFile(key))); err == nil {
				return data, nil
			}
		}
	}
	return ask(l, func(s storage.Store) ([]byte, error) { return s.ImageBigData(id, key) })
}
