package builder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// CommitOptions says how an image is recorded.
type CommitOptions struct {
	// Names are full names; none leaves the image nameless.
	Names  []string
	Format define.Format
	// Squash makes one layer of all that was changed since the base;
	// SquashAll one of everything, the base included.
	Squash, SquashAll bool
	// Layer says what the last layer's stream holds, when changes are open.
	Layer layer.FreezeOptions
	// Created is the image's time; nil: that of the newest history entry,
	// so that a build whose steps all come from the cache gives the same
	// image.
	Created *time.Time
	// Prepare, for a stored container, is given a copy of it before the image
	// is recorded: what it changes, files and configuration, is the image's
	// alone. May be nil.
	Prepare func(ctx context.Context, c *Container) error
	// History is added for open changes that are sealed by Commit.
	History *image.History
	// Steps are written into the image as its image.CacheRecord, as far as
	// their results are layers of it.
	Steps []StepResult
}

// StepResult is what a step of a build made.
type StepResult struct {
	Key digest.Digest // of the step's cache key
	// Parent is the layer below, "" for none; Layer the step's own, "" when it
	// changed no file.
	Parent, Layer define.LayerID
	Created       time.Time
}

// Committed is an image in the store.
type Committed struct {
	ID        define.ImageID
	Digest    digest.Digest // of the manifest
	MediaType string
	Size      int64 // of the manifest, bytes
	Names     []string
	Lost      []string
}

// Commit seals open changes, waits for all layers, makes them durable and
// records the image, last and in one step.
//
// A stored container is left as it was: its changes are copied, once.
func (c *Container) Commit(ctx context.Context, o CommitOptions) (*Committed, error) {
	if c.stored != nil && !c.stored.layered {
		return c.commitStored(ctx, o)
	}
	if c.Dirty() {
		if _, err := c.Seal(ctx, o.Layer); err != nil {
			return nil, err
		}
		c.Image.History = append(c.Image.History, commitHistory(o))
	}
	top, err := c.squashed(ctx, o)
	if err != nil {
		return nil, err
	}
	infos, err := chain(ctx, top)
	if err != nil {
		return nil, err
	}
	return c.record(ctx, infos, o)
}

// commitStored commits what a stored container is now.
func (c *Container) commitStored(ctx context.Context, o CommitOptions) (*Committed, error) {
	if err := c.Keep(ctx, layer.FreezeOptions{}); err != nil {
		return nil, err
	}
	now := &Container{Image: c.Image.Clone(), Base: c.Base, engine: c.engine, space: c.space, base: c.base, top: c.top}
	if c.stored.changed {
		var err error
		if now.top, err = c.space.Snapshot(ctx, c.top, c.stored.layerID, o.Layer); err != nil {
			return nil, err
		}
	}
	if h := commitHistory(o); c.stored.changed || c.stored.note != (LayerNote{}) {
		h.EmptyLayer = !c.stored.changed
		if c.stored.note.CreatedBy != "" {
			h.CreatedBy = c.stored.note.CreatedBy
		}
		h.Comment, h.Author = c.stored.note.Comment, c.Image.Author
		now.Image.History = append(now.Image.History, h)
	}
	if o.Prepare != nil {
		if err := o.Prepare(ctx, now); err != nil {
			return nil, errors.Join(err, now.Rollback())
		}
	}
	return now.Commit(ctx, o)
}

// squashed makes fewer layers of the chain when o asks for it.
func (c *Container) squashed(ctx context.Context, o CommitOptions) (*layer.Layer, error) {
	base := c.base
	switch {
	case o.SquashAll:
		base = nil
	case !o.Squash || c.top == c.base:
		return c.top, nil
	}
	top, err := c.space.Squash(ctx, base, c.top, o.Layer)
	if err != nil {
		return nil, fmt.Errorf("squash: %w", err)
	}
	c.squashHistory(base)
	return top, nil
}

func commitHistory(o CommitOptions) image.History {
	if o.History != nil {
		return *o.History
	}
	now := time.Now().UTC()
	if o.Created != nil {
		now = *o.Created
	}
	return image.History{Created: &now, CreatedBy: "strata commit"}
}

// squashHistory marks all entries since base as empty but the last, which
// stands for the one layer.
func (c *Container) squashHistory(base *layer.Layer) {
	layers := 0
	for l := base; l != nil; l = l.Parent() {
		layers++
	}
	h := c.Image.History
	start := 0
	for ; start < len(h) && layers > 0; start++ {
		if !h[start].EmptyLayer {
			layers--
		}
	}
	last := -1
	for i := start; i < len(h); i++ {
		if !h[i].EmptyLayer {
			h[i].EmptyLayer = true
			last = i
		}
	}
	if last >= 0 {
		h[last].EmptyLayer = false
	}
}

// chain waits for every layer, bottom first.
func chain(ctx context.Context, top *layer.Layer) ([]layer.Info, error) {
	var infos []layer.Info
	for l := top; l != nil; l = l.Parent() {
		info, err := l.Wait(ctx)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	for i, j := 0, len(infos)-1; i < j; i, j = i+1, j-1 {
		infos[i], infos[j] = infos[j], infos[i]
	}
	return infos, nil
}

func (c *Container) record(ctx context.Context, infos []layer.Info, o CommitOptions) (*Committed, error) {
	layers := encodedLayers(infos)
	var top define.LayerID
	if len(infos) > 0 {
		top = infos[len(infos)-1].ID
	}
	c.Image.Created = o.Created
	if c.Image.Created == nil {
		c.Image.Created = newest(c.Image.History)
	}
	format := o.Format
	if format == "" {
		format = define.FormatOCI
	}
	img := *c.Image
	img.Cache = cacheRecord(o.Steps, infos)
	enc, err := img.Encode(format, layers)
	if err != nil {
		return nil, err
	}
	if !c.recorded(enc, top, o.Names) {
		if err := c.space.Sync(ctx); err != nil {
			return nil, err
		}
		if err := image.Record(c.engine.store, enc, top, o.Names); err != nil {
			return nil, err
		}
	}
	define.Emit(c.engine.opts.Listener, define.Event{Kind: define.EventImage, Image: enc.ID, Names: o.Names})
	return &Committed{ID: enc.ID, Digest: enc.ManifestDigest, MediaType: enc.MediaType,
		Size: int64(len(enc.Manifest)), Names: o.Names, Lost: enc.Lost}, nil
}

// cacheRecord is the record of those results that are the image's own layers.
func cacheRecord(steps []StepResult, infos []layer.Info) *image.CacheRecord {
	height := map[define.LayerID]int{"": 0}
	for i, info := range infos {
		height[info.ID] = i + 1
	}
	var results []image.CacheResult
	for _, s := range steps {
		n, ok := height[s.Parent]
		if s.Layer != "" && ok {
			below := n
			n, ok = height[s.Layer]
			ok = ok && n == below+1
		}
		if ok {
			results = append(results, image.CacheResult{Key: s.Key, Layers: n, Empty: s.Layer == "", Created: s.Created})
		}
	}
	return image.NewCacheRecord(results)
}

func encodedLayers(infos []layer.Info) []image.Layer {
	layers := make([]image.Layer, len(infos))
	for i, info := range infos {
		layers[i] = image.Layer{DiffID: info.DiffID, Digest: info.DiffID, Size: info.Size}
	}
	return layers
}

// recorded reports whether the store holds the very image under all names, as
// after a build whose steps all came from the cache: then nothing is written.
func (c *Container) recorded(enc *image.Encoded, top define.LayerID, names []string) bool {
	img, err := c.engine.store.Raw().Image(string(enc.ID))
	// The record's own digest is the manifest's that it was made with.
	if err != nil || img.TopLayer != string(top) || img.BigDataDigests[storage.ImageDigestBigDataKey] != enc.ManifestDigest {
		return false
	}
	for _, n := range names {
		if !slices.Contains(img.Names, n) {
			return false
		}
	}
	return true
}

// newest is the time of the latest history entry; the Unix epoch when there
// is none.
func newest(h []image.History) *time.Time {
	t := time.Unix(0, 0).UTC()
	for _, e := range h {
		if e.Created != nil && e.Created.After(t) {
			t = e.Created.UTC()
		}
	}
	return &t
}
