package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// The record of results in an image itself (BUILDKIT_INLINE_CACHE, --cache-to
// type=inline): which of its layers each step of the target stage made. It is
// written with the image's config, and read from the ordinary image that a
// place of --cache-from names. See docs/design/cache.md.

// inlineArg is the build argument that docker's users ask for the record with.
const inlineArg = "BUILDKIT_INLINE_CACHE"

// inline reports the wish for a record in the image.
func (o *Options) inline() bool {
	ask, _ := strconv.ParseBool(o.BuildArgs[inlineArg])
	return ask || o.InlineCache
}

// madeStep is a step of the stage's chain; its layers may still be committed.
type madeStep struct {
	key           *cache.Key // which tells by contents, without the parent
	parent, layer layerRef
	created       time.Time
}

// layerRef is a layer that has an ID or will have one; the zero value is none.
type layerRef struct {
	id   define.LayerID
	made *layer.Layer
}

func (r layerRef) wait(ctx context.Context) (define.LayerID, error) {
	if r.made == nil {
		return r.id, nil
	}
	info, err := r.made.Wait(ctx)
	return info.ID, err
}

// below is the layer that the next step stands on.
func (s *stage) below() layerRef {
	if s.missed {
		return layerRef{made: s.c.Top()}
	}
	return layerRef{id: s.top}
}

// noteStep remembers a step for the record in the image. Only the key that
// tells by contents is: the others depend on how other stages came about, so
// that the same image would not get the same record.
func (s *stage) noteStep(k *cache.Key, parent, made layerRef, created time.Time) {
	if k == nil || !s.b.opts.inline() {
		return
	}
	if fixed := s.b.opts.fixedTime(); fixed != nil {
		created = *fixed
	}
	s.steps = append(s.steps, madeStep{k, parent, made, created})
}

// noteCached is noteStep for a step that was found under one of the asked keys.
func (s *stage) noteCached(ctx context.Context, f fsStep, asked []*cache.Key, r *cache.Result) error {
	if !s.b.opts.inline() {
		return nil
	}
	k := asked[len(asked)-1]
	if len(asked) < len(f.keys) {
		var err error
		if k, err = f.keys[len(f.keys)-1](ctx); err != nil {
			return err
		}
	}
	s.noteStep(k, layerRef{id: s.top}, layerRef{id: r.Layer}, r.Created)
	return nil
}

// stepResults are the stage's steps once their layers are committed.
func (s *stage) stepResults(ctx context.Context) ([]builder.StepResult, error) {
	var all []builder.StepResult
	for _, m := range s.steps {
		parent, err := m.parent.wait(ctx)
		if err != nil {
			return nil, err
		}
		own, err := m.layer.wait(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, builder.StepResult{Key: withParent(m.key, parent).Digest(), Parent: parent, Layer: own, Created: m.created})
	}
	return all, nil
}

// checkInline says when a record that was asked for cannot be written.
func (b *build) checkInline() {
	switch {
	case !b.opts.inline():
	case !b.opts.layers():
		b.warn("no record of the cache is written into the image: --layers=false makes no results of steps")
	case b.opts.Squash || b.opts.SquashAll:
		b.warn("no layer of a step is named in the image's record of the cache: --squash joins them")
	}
}

// inlineImage is what an image that a place names records, read once for each
// platform.
type inlineImage struct {
	once    sync.Once
	image   *transport.Remote
	diffIDs []digest.Digest
	results map[digest.Digest]image.CacheResult
}

type inlineID struct {
	place    CachePlace
	platform string
}

// inlineOf returns the record of the image that a place names; without any
// result when there is no such image, or no record in it.
func (c *remoteCache) inlineOf(ctx context.Context, p CachePlace, platform define.Platform) *inlineImage {
	v, _ := c.inlines.LoadOrStore(inlineID{p, define.FormatPlatform(platform)}, &inlineImage{})
	in := v.(*inlineImage)
	in.once.Do(func() {
		err := c.readInline(ctx, in, p, platform)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, define.ErrNotFound):
		case errors.Is(err, define.ErrInvalid), errors.Is(err, define.ErrUnsupported):
			define.Emit(c.engine.Listener(), define.Event{Kind: define.EventWarning,
				Text: fmt.Sprintf("the record of the cache in the image %s is not used: %v", p.Ref, err)})
		default:
			c.giveUp(p, "asked", err)
		}
	})
	return in
}

func (c *remoteCache) readInline(ctx context.Context, in *inlineImage, p CachePlace, platform define.Platform) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	remote, err := c.engine.Transport().Look(ctx, "docker://"+p.Ref, platform)
	if err != nil {
		return err
	}
	img, diffIDs, err := image.ParseConfig(remote.Config)
	if err != nil {
		return err
	}
	if len(remote.Manifest.Layers) != len(diffIDs) {
		return fmt.Errorf("its manifest has %d layers, its config %d: %w", len(remote.Manifest.Layers), len(diffIDs), define.ErrInvalid)
	}
	record, err := image.ParseCacheRecord(remote.Config, len(diffIDs))
	if err != nil {
		return err
	}
	if record == nil {
		if img.Config.Labels[labelCacheKey] == "" && img.Config.Labels[labelCacheMount] == "" {
			define.Emit(c.engine.Listener(), define.Event{Kind: define.EventNote,
				Text: fmt.Sprintf("cache %s: the image has no record of results of steps; build it with --cache-to type=inline", p.Ref)})
		}
		return nil
	}
	in.image, in.diffIDs = remote, diffIDs
	in.results = make(map[digest.Digest]image.CacheResult, len(record.Results))
	for _, r := range record.Results {
		in.results[r.Key] = r
	}
	return nil
}

// fetchInline takes the result under a key from the image that a place names;
// nil when the image does not record it.
func (s *stage) fetchInline(ctx context.Context, p CachePlace, k *cache.Key, slot cache.Slot) (*cache.Result, error) {
	if p.Type != "registry" {
		return nil, nil
	}
	in := s.b.remote.inlineOf(ctx, p, s.platform)
	key := k.Digest()
	found, ok := in.results[key]
	if !ok {
		return nil, nil
	}
	if ttl := s.b.opts.CacheTTL; ttl != nil && time.Since(found.Created) >= *ttl {
		return nil, nil
	}
	if found.Empty {
		r := &cache.Result{Created: found.Created.UTC()}
		return r, s.b.engine.Cache().Save(ctx, slot, k, *r)
	}
	turn, _ := s.b.remote.pulls.LoadOrStore(key, &sync.Mutex{})
	mu := turn.(*sync.Mutex)
	mu.Lock()
	defer mu.Unlock()
	if r, ok, err := s.b.engine.Cache().Lookup(ctx, k); err != nil || ok {
		return r, err
	}
	below, err := s.b.remote.chain(s.top)
	if err != nil {
		return nil, err
	}
	enc, err := in.part(key, found, s.platform, below)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.image.Name, err)
	}
	if err := s.b.engine.Transport().PullPart(ctx, in.image, enc); err != nil {
		return nil, err
	}
	defer s.b.remote.forget(enc.ID, "")
	return s.keepResult(ctx, k, slot, in.image.Name, enc.ID)
}

// part is the image that carries a result, as it would be in a cache of its
// own: the layers below, which the store has, and the step's, which is the
// only one that has to be fetched.
func (in *inlineImage) part(key digest.Digest, found image.CacheResult, p define.Platform, below []image.Layer) (*image.Encoded, error) {
	own := found.Layers - 1
	lies := len(below) == own
	for i := 0; lies && i < own; i++ {
		lies = below[i].DiffID == in.diffIDs[i]
	}
	if !lies {
		return nil, fmt.Errorf("its layer %d lies on others than the step does: %w", found.Layers, define.ErrInvalid)
	}
	layer := in.image.Manifest.Layers[own]
	layer.DiffID = in.diffIDs[own]
	img := image.New(p)
	created := found.Created.UTC()
	img.Created = &created
	img.Config.Labels = map[string]string{labelCacheKey: key.String()}
	format := define.FormatOCI
	if in.image.Manifest.MediaType == image.MediaTypeDockerManifest {
		format = define.FormatDocker
	}
	return img.Encode(format, append(below, layer))
}
