package cache

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// Key is a list of named parts in the order they were added. The zero Key is
// ready for use.
type Key struct{ parts []Part }

// Part is one named part. Values may be long (an instruction) but not
// secret: they are kept on disk.
type Part struct {
	Name  string `json:"n"`
	Value string `json:"v"`
}

// Add appends a part.
func (k *Key) Add(name, value string) { k.parts = append(k.parts, Part{name, value}) }

// AddFiles appends one part a file, named "file PATH".
func (k *Key) AddFiles(files []copier.FileDigest) { panic("cache") }

// Parts returns the parts.
func (k *Key) Parts() []Part { return k.parts }

// Digest is injective over the list of parts (lengths are part of it).
func (k *Key) Digest() digest.Digest { panic("cache") }

// Slot says which step of which build a key belongs to, so that the next
// build of the same thing can be compared with it.
type Slot struct {
	// Build identifies what is built: context, Containerfile, platform.
	Build string
	// Stage and N are the place in it; Instruction its keyword.
	Stage       string
	N           int
	Instruction string
}

// Result is what a step made.
type Result struct {
	// Layer is "" when the step changed nothing of the file system.
	Layer  define.LayerID `json:"layer,omitempty"`
	DiffID digest.Digest  `json:"diffID,omitempty"`
	Size   int64          `json:"size,omitempty"`
	// Created is when the step was executed.
	Created time.Time `json:"created"`
	// Note is free for the caller (JSON), returned as it was.
	Note string `json:"note,omitempty"`
}

// Cache is an open cache. It is safe for concurrent use, by processes too.
type Cache struct{ _ int }

// Open opens the cache of a store. It costs no I/O.
func Open(st *store.Store) (*Cache, error) { panic("cache") }

// Lookup returns the result recorded under the key, when its layer is (still)
// in the store.
func (c *Cache) Lookup(ctx context.Context, k *Key) (*Result, bool, error) { panic("cache") }

// Save records a result under the key, and the key as the slot's latest.
func (c *Cache) Save(ctx context.Context, s Slot, k *Key, r Result) error { panic("cache") }

// Seen makes the key the slot's latest without a new record (after a hit).
// It writes only when that changes something.
func (c *Cache) Seen(ctx context.Context, s Slot, k *Key) error { panic("cache") }

// Explain says, in one line and as fields, why the key is not in the cache:
// the first part that differs from the slot's latest key, or from the nearest
// key of the same instruction, or that there is no earlier build. To be
// asked before Save.
func (c *Cache) Explain(ctx context.Context, s Slot, k *Key) (Explanation, error) { panic("cache") }

// Explanation is the reason for a miss.
type Explanation struct {
	// Part is the name of the first part that differs, "" when there is
	// nothing to compare with or the layer was removed from the store.
	Part     string
	Was, Now string // values, "" when absent
	// Text is the reason as one line for a person.
	Text string
}

// Index returns the digests of files known from earlier builds, trusted only
// where device, inode, size, mtime and ctime are equal and the file was not
// written in the two seconds before it was read. Flush writes it.
func (c *Cache) Index(ctx context.Context, name string) (*FileIndex, error) { panic("cache") }

// FileIndex is a copier.Index on disk.
type FileIndex struct{ _ int }

// Lookup implements copier.Index.
func (x *FileIndex) Lookup(copier.FileID) (digest.Digest, bool) { panic("cache") }

// Remember implements copier.Index.
func (x *FileIndex) Remember(copier.FileID, digest.Digest) { panic("cache") }

// Flush writes what was remembered, by rename.
func (x *FileIndex) Flush() error { panic("cache") }

// PruneOptions says what to remove; the zero value removes records whose
// layer is gone and layers that only the cache holds and no build has used.
type PruneOptions struct {
	// OlderThan keeps what was used within it; 0 keeps nothing.
	OlderThan time.Duration
	// KeepBytes keeps the most recently used layers up to that size.
	KeepBytes int64
	DryRun    bool
}

// Pruned counts what was removed.
type Pruned struct {
	Records int
	Layers  []define.LayerID
	Bytes   int64
}

// Prune removes records, and the layers that only they held. Layers of
// images, of containers and of running builds stay.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Pruned, error) { panic("cache") }

// Usage sums up what the cache holds.
func (c *Cache) Usage(ctx context.Context) (records int, layers int, bytes int64, err error) {
	panic("cache")
}
