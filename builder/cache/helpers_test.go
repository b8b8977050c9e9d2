package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
)

// The store's vfs driver copies layers in a process of its own: this one.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// memoryStore is a layerStore that refuses what containers/storage refuses.
type memoryStore struct {
	mu         sync.Mutex
	layers     map[string]storage.Layer
	images     map[string]string // ID to top layer
	mapped     []string
	containers []string
	deleted    []string
	failDelete error
}

func newMemoryStore() *memoryStore {
	return &memoryStore{layers: map[string]storage.Layer{}, images: map[string]string{}}
}

func (m *memoryStore) add(parent, id define.LayerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.layers[string(id)] = storage.Layer{ID: string(id), Parent: string(parent), UncompressedSize: 100}
}

func (m *memoryStore) Has(id string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.layers[id]
	return ok, nil
}

func (m *memoryStore) Layers() ([]storage.Layer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.layers)), nil
}

func (m *memoryStore) Images() ([]storage.Image, error) {
	var list []storage.Image
	for id, top := range m.images {
		list = append(list, storage.Image{ID: id, TopLayer: top, MappedTopLayers: m.mapped})
	}
	return list, nil
}

func (m *memoryStore) Containers() ([]storage.Container, error) {
	var list []storage.Container
	for _, l := range m.containers {
		list = append(list, storage.Container{LayerID: l})
	}
	return list, nil
}

func (m *memoryStore) DeleteLayer(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failDelete != nil {
		return m.failDelete
	}
	if _, ok := m.layers[id]; !ok {
		return storage.ErrLayerUnknown
	}
	for _, l := range m.layers {
		if l.Parent == id {
			return fmt.Errorf("used by layer %s: %w", l.ID, storage.ErrLayerHasChildren)
		}
	}
	for _, top := range m.images {
		if top == id {
			return storage.ErrLayerUsedByImage
		}
	}
	if slices.Contains(m.containers, id) {
		return storage.ErrLayerUsedByContainer
	}
	delete(m.layers, id)
	m.deleted = append(m.deleted, id)
	return nil
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// newCache makes a cache in a temporary directory, over a store in memory.
func newCache(tb testing.TB) (*Cache, *memoryStore, *clock) {
	tb.Helper()
	dir, ms, clk := tb.TempDir(), newMemoryStore(), &clock{t: time.Now()}
	c := openAt(dir, ms, clk)
	tb.Cleanup(func() { _ = c.Close() })
	return c, ms, clk
}

func openAt(dir string, ms layerStore, clk *clock) *Cache {
	return &Cache{layers: ms, state: func() (string, error) { return dir, nil }, now: clk.now}
}

func layerID(name string) define.LayerID {
	sum := sha256.Sum256([]byte(name))
	return define.LayerID(hex.EncodeToString(sum[:]))
}

func key(pairs ...string) *Key {
	k := &Key{}
	for i := 0; i < len(pairs); i += 2 {
		k.Add(pairs[i], pairs[i+1])
	}
	return k
}

// fileList is a Files.
type fileList []fileSum

type fileSum struct {
	path string
	sum  [sha256.Size]byte
}

func (l fileList) Len() int { return len(l) }

func (l fileList) Each(yield func(path []byte, sum *[sha256.Size]byte) bool) {
	for i := range l {
		if !yield([]byte(l[i].path), &l[i].sum) {
			return
		}
	}
}

func manyFiles(n int) fileList {
	files := make(fileList, n)
	for i := range files {
		name := fmt.Sprintf("src/dir%03d/file%05d.txt", i/100, i)
		files[i] = fileSum{name, sumOf(name)}
	}
	return files
}

func sumOf(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

// encodeParts encodes as many parts as fit, and says how many.
func encodeParts(k *Key) (body []byte, kept int) {
	e := partsEncoder{out: func(part []byte) error { body = append(body, part...); return nil }}
	_ = e.key(k)
	return body, e.kept
}

// encodeRecord is a record as a file holds it.
func encodeRecord(tb testing.TB, k *Key, r Result) []byte {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "record"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := writeRecord(f, k.id(), k, r); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func save(tb testing.TB, c *Cache, s Slot, k *Key, r Result) {
	tb.Helper()
	if err := c.Save(context.Background(), s, k, r); err != nil {
		tb.Fatal(err)
	}
}

func lookup(tb testing.TB, c *Cache, k *Key) (*Result, bool) {
	tb.Helper()
	r, ok, err := c.Lookup(context.Background(), k)
	if err != nil {
		tb.Fatal(err)
	}
	if ok != (r != nil) {
		tb.Fatalf("hit %v with result %v", ok, r)
	}
	return r, ok
}

func path(c *Cache, k *Key) string {
	base, _ := c.dir()
	return recordPath(base, k.id())
}

// count returns how many files and links a part of the cache holds.
func count(tb testing.TB, c *Cache, kind string) int {
	tb.Helper()
	base, _ := c.dir()
	n := 0
	err := filepath.WalkDir(filepath.Join(base, kind), func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return ignoreMissing(err)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
