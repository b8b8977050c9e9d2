package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// Result is what a step made.
type Result struct {
	// Layer is "" when the step changed nothing of the file system.
	Layer  define.LayerID `json:"layer,omitempty"`
	DiffID digest.Digest  `json:"diffID,omitempty"`
	Size   int64          `json:"size,omitempty"`
	// Created is when the step was executed.
	Created time.Time `json:"created"`
	// Note is free for the caller (JSON), returned as it was; at most
	// 1 MiB less the other fields.
	Note string `json:"note,omitempty"`
}

// Cache is an open cache. It is safe for concurrent use, by processes too.
type Cache struct {
	layers layerStore
	state  func() (string, error) // the store's state directory
	now    func() time.Time

	locate sync.Once
	base   string // <state>/cache
	locErr error

	mu      sync.Mutex
	busy    *os.File // held shared while this process builds
	indexes map[string]*FileIndex
	logs    map[string]*slotLog
}

// layerStore is what the cache needs of containers/storage.
type layerStore interface {
	// Has reports whether there is a layer with exactly this ID.
	Has(id string) (bool, error)
	Layers() ([]storage.Layer, error)
	Images() ([]storage.Image, error)
	Containers() ([]storage.Container, error)
	DeleteLayer(id string) error
}

// layersOf is the layerStore of a real store.
type layersOf struct {
	storage.Store
	st *store.Store
}

func (l layersOf) Has(id string) (bool, error) {
	rec, err := l.st.Layer(id)
	if errors.Is(err, storage.ErrLayerUnknown) {
		return false, nil
	}
	// The store finds layers by name and by the beginning of an ID as well.
	return err == nil && rec.ID == id, err
}

// Open opens the cache of a store. It costs no I/O.
func Open(st *store.Store) (*Cache, error) {
	if st == nil {
		return nil, fmt.Errorf("build cache: no store: %w", define.ErrInvalid)
	}
	return &Cache{layers: layersOf{st.Raw(), st}, state: st.StateDir, now: time.Now}, nil
}

// Close lets a Prune elsewhere remove what this process has used. A process
// that ends need not call it; a Cache can be used again afterwards.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.busy
	c.busy = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// dir returns the cache's directory, which may not exist.
func (c *Cache) dir() (string, error) {
	c.locate.Do(func() {
		state, err := c.state()
		if err != nil {
			c.locErr = fmt.Errorf("build cache: %w", err)
			return
		}
		c.base = filepath.Join(state, "cache")
	})
	return c.base, c.locErr
}

// Lookup returns the result recorded under the key, when its layer is (still)
// in the store. It costs one open and one read, whatever the number of
// records, of images and of parts.
func (c *Cache) Lookup(ctx context.Context, k *Key) (*Result, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	base, err := c.dir()
	if err != nil {
		return nil, false, err
	}
	if err := c.hold(ctx, base); err != nil {
		return nil, false, err
	}
	id := k.id()
	rec, err := openRecord(recordPath(base, id), id)
	if errors.Is(err, errNoRecord) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("build cache: look up %x: %w", id[:6], err)
	}
	defer rec.close()
	there, err := c.hasLayer(rec.result.Layer)
	if err != nil || !there {
		return nil, false, err
	}
	rec.touch(c.now())
	r := rec.result
	return &r, true, nil
}

// hasLayer reports whether the store holds the layer; "" is always there.
func (c *Cache) hasLayer(id define.LayerID) (bool, error) {
	if id == "" {
		return true, nil
	}
	there, err := c.layers.Has(string(id))
	if err != nil {
		return false, fmt.Errorf("build cache: look for layer %s in the store: %w", id, err)
	}
	return there, nil
}

// Save records a result under the key, and the key as the slot's latest. Key
// parts beyond 64 MiB are left out of the record: such a key hits as any
// other, its misses are explained by the parts that were kept.
func (c *Cache) Save(ctx context.Context, s Slot, k *Key, r Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.Layer != "" && !validLayerID(string(r.Layer)) {
		return fmt.Errorf("build cache: layer ID %q is not 64 hex digits: %w", r.Layer, define.ErrInvalid)
	}
	base, err := c.dir()
	if err != nil {
		return err
	}
	if err := c.hold(ctx, base); err != nil {
		return err
	}
	id := k.id()
	write := func(fd int) error { return writeRecord(writerAt(fd), id, k, r) }
	path := recordPath(base, id)
	isNew, err := writeNew(path, write)
	if err == nil && !isNew {
		err = replaceRecord(base, path, id, r, write)
	}
	if err != nil {
		return fmt.Errorf("build cache: save %x: %w", id[:6], err)
	}
	return c.setSlots(base, s, k, false)
}

// replaceRecord writes a record over another, or over one that was damaged.
func replaceRecord(base, path string, id [32]byte, r Result, write func(fd int) error) error {
	if old, err := openRecord(path, id); err == nil {
		// A step that was executed again left another layer. Without a
		// record, nobody would find the old one to remove it.
		if l := old.result.Layer; l != "" && l != r.Layer {
			err = addOrphan(base, string(l))
		}
		old.close()
		if err != nil {
			return err
		}
	}
	return writeFile(base, path, write)
}

// Note tells the cache of a layer that was made without a key, so that Prune
// removes it once no image needs it.
func (c *Cache) Note(ctx context.Context, layer define.LayerID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	base, err := c.dir()
	if err != nil {
		return err
	}
	if err := c.hold(ctx, base); err != nil {
		return err
	}
	return addOrphan(base, string(layer))
}

// Seen makes the key the slot's latest without a new record (after a hit).
// It writes only when that changes something.
func (c *Cache) Seen(ctx context.Context, s Slot, k *Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	base, err := c.dir()
	if err != nil {
		return err
	}
	return c.setSlots(base, s, k, true)
}

// hold takes the lock that tells Prune that a build is running. The first
// one to come sets the file's time, so that Prune knows how far back the
// running builds may reach. Without the lock (a read-only store) the cache
// works as well, only less guarded.
func (c *Cache) hold(ctx context.Context, base string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy != nil {
		return nil
	}
	f, err := openLock(base)
	if err != nil {
		return nil
	}
	fd := int(f.Fd())
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = setMTime(fd, c.now())
	}
	// The exclusive lock is given up for the shared one; a Prune may come in
	// between, and is waited for.
	for {
		err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			c.busy = f
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break // a file system without flock(2)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), f.Close())
		case <-time.After(time.Millisecond):
		}
	}
	return f.Close()
}

func openLock(base string) (*os.File, error) {
	name := filepath.Join(base, "lock")
	const flags = os.O_RDWR | os.O_CREATE | unix.O_NOFOLLOW
	f, err := os.OpenFile(name, flags, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(base, 0o700); err == nil {
			f, err = os.OpenFile(name, flags, 0o600)
		}
	}
	return f, err
}
