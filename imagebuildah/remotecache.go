package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// CachePlace is where results of steps are kept for other machines: a
// repository of a registry, or an OCI layout. See docs/design/cache.md.
type CachePlace struct {
	// Type is "registry" or "local".
	Type string
	// Ref is a full repository, with a tag that begins the tags of the cache,
	// or a directory.
	Ref string
	// Mounts: the directories of RUN --mount=type=cache are written, too.
	Mounts bool
}

// NewCachePlace checks a place.
func NewCachePlace(kind, ref string) (CachePlace, error) {
	p := CachePlace{Type: kind, Ref: ref}
	switch {
	case ref == "":
		return p, fmt.Errorf("cache of type %s: nothing says where it is: %w", kind, define.ErrInvalid)
	case kind == "local":
		if strings.Contains(ref, ":") {
			return p, fmt.Errorf("cache directory %q: the name of an OCI layout has no colon: %w", ref, define.ErrInvalid)
		}
		return p, nil
	case kind != "registry":
		return p, fmt.Errorf("cache type %q: want registry or local: %w", kind, define.ErrUnsupported)
	case strings.Contains(ref, "@"):
		return p, fmt.Errorf("cache repository %s: want no digest: %w", ref, define.ErrInvalid)
	}
	full, err := transport.NormalizeTag(strings.TrimPrefix(ref, "docker://"))
	if err != nil {
		return p, fmt.Errorf("cache repository: %w", err)
	}
	if strings.HasPrefix(full, "localhost/") {
		return p, fmt.Errorf("cache repository %s: its name has no registry; write REGISTRY/NAME: %w", ref, define.ErrInvalid)
	}
	repo, tag := full, ""
	if at := strings.LastIndex(full, ":"); at > strings.LastIndex(full, "/") {
		repo, tag = full[:at], full[at+1:]
	}
	if !strings.HasSuffix(ref, ":"+tag) {
		p.Ref = repo // NormalizeTag's own
		return p, nil
	}
	if p.Ref = full; len(tag) > maxCacheTag {
		return p, fmt.Errorf("cache repository %s: a tag of a cache has at most %d characters: %w", ref, maxCacheTag, define.ErrInvalid)
	}
	return p, nil
}

// maxCacheTag leaves room for a dash and a digest in a tag of 128 characters.
const maxCacheTag = 128 - 1 - 64

// name is what the result under a key is called.
func (p CachePlace) name(key digest.Digest) string {
	if p.Type == "local" {
		return "oci:" + p.Ref + ":" + key.Encoded()
	}
	if strings.LastIndex(p.Ref, ":") > strings.LastIndex(p.Ref, "/") {
		return "docker://" + p.Ref + "-" + key.Encoded()
	}
	return "docker://" + p.Ref + ":" + key.Encoded()
}

// empty reports a layout that has not been written yet.
func (p CachePlace) empty() bool {
	if p.Type != "local" {
		return false
	}
	_, err := os.Stat(filepath.Join(p.Ref, "index.json"))
	return errors.Is(err, os.ErrNotExist)
}

// Labels of images that hold results.
const (
	labelCacheKey   = "io.strata.cache.key"
	labelCacheLayer = "io.strata.cache.layer" // "none" when the step changed no file
)

// askLimit is how long a place may take to say whether it has a key: a place
// that is slower saves no time.
const askLimit = 30 * time.Second

// remoteCache is what a run knows of caches elsewhere.
type remoteCache struct {
	engine   *builder.Engine
	from, to []CachePlace

	pulls sync.Map // of *sync.Mutex by key: stages may need the same step
	// inlines are the images that places name, *inlineImage by inlineID.
	inlines sync.Map

	mu      sync.Mutex
	off     map[CachePlace]bool // failed, and not asked again
	results []remoteResult
	mounts  []cacheMount
	noted   map[digest.Digest]bool
}

// remoteResult is a result that is to be written elsewhere.
type remoteResult struct {
	key      digest.Digest
	parent   define.LayerID
	platform define.Platform
	result   cache.Result
}

func newRemoteCache(e *builder.Engine, o *Options) *remoteCache {
	if len(o.CacheFrom) == 0 && len(o.CacheTo) == 0 {
		return nil
	}
	return &remoteCache{engine: e, from: o.CacheFrom, to: o.CacheTo, off: map[CachePlace]bool{}, noted: map[digest.Digest]bool{}}
}

// note remembers a result for export; k has its parent.
func (c *remoteCache) note(s *stage, k *cache.Key, parent define.LayerID, r cache.Result) {
	if c == nil || len(c.to) == 0 {
		return
	}
	key := k.Digest()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.noted[key] {
		c.noted[key] = true
		c.results = append(c.results, remoteResult{key: key, parent: parent, platform: s.platform, result: r})
	}
}

// working are the places that have not failed.
func (c *remoteCache) working(places []CachePlace) []CachePlace {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(places), func(p CachePlace) bool { return c.off[p] })
}

// give up on a place, saying so once.
func (c *remoteCache) giveUp(p CachePlace, what string, err error) {
	c.mu.Lock()
	again := c.off[p]
	c.off[p] = true
	c.mu.Unlock()
	if !again {
		define.Emit(c.engine.Listener(), define.Event{Kind: define.EventWarning, Text: fmt.Sprintf("the cache %s is not %s any more: %v", p.Ref, what, err)})
	}
}

// lookupRemote asks the caches elsewhere for a step that the store's does not
// know. No failure of theirs is one of the build.
func (s *stage) lookupRemote(ctx context.Context, f fsStep, step *define.Step, asked []*cache.Key) (bool, error) {
	c := s.b.remote
	if c == nil {
		return false, nil
	}
	// What images record is known without asking for each key.
	for _, fetch := range []func(context.Context, CachePlace, *cache.Key, cache.Slot) (*cache.Result, error){s.fetchInline, s.fetch} {
		for _, k := range asked {
			full := withParent(k, s.top)
			for _, p := range c.working(c.from) {
				r, err := fetch(ctx, p, full, s.slot(f.in, step))
				if ctx.Err() != nil {
					return false, context.Cause(ctx)
				}
				if err != nil {
					c.giveUp(p, "asked", err)
					continue
				}
				if r != nil {
					return true, s.useCached(ctx, f, step, full, asked, r)
				}
			}
		}
	}
	return false, nil
}

// fetch takes the result under a key from a place into the store and its
// cache; nil when it is not there.
func (s *stage) fetch(ctx context.Context, p CachePlace, k *cache.Key, slot cache.Slot) (*cache.Result, error) {
	name := p.name(k.Digest())
	there, err := s.b.remote.has(ctx, p, name)
	if err != nil || !there {
		return nil, err
	}
	turn, _ := s.b.remote.pulls.LoadOrStore(k.Digest(), &sync.Mutex{})
	mu := turn.(*sync.Mutex)
	mu.Lock()
	defer mu.Unlock()
	if r, ok, err := s.b.engine.Cache().Lookup(ctx, k); err != nil || ok {
		return r, err
	}
	local, err := s.b.engine.Transport().Pull(ctx, name, s.platform, define.PullAlways)
	if err != nil {
		return nil, err
	}
	defer s.b.remote.forget(local.ID, local.Name)
	return s.keepResult(ctx, k, slot, name, local.ID)
}

// keepResult records what a pulled image says of a step.
func (s *stage) keepResult(ctx context.Context, k *cache.Key, slot cache.Slot, name string, id define.ImageID) (*cache.Result, error) {
	r, err := s.readResult(k.Digest(), id)
	if errors.Is(err, define.ErrNotFound) {
		// Another process pulled it too, and dropped the image: see forget. It
		// saved the record before.
		r, ok, err := s.b.engine.Cache().Lookup(ctx, k)
		if err != nil || ok {
			return r, err
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if ttl := s.b.opts.CacheTTL; ttl != nil && time.Since(r.Created) >= *ttl {
		return nil, nil
	}
	return r, s.b.engine.Cache().Save(ctx, slot, k, *r)
}

// has reports whether a place has an image of the name.
func (c *remoteCache) has(ctx context.Context, p CachePlace, name string) (bool, error) {
	if p.empty() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	_, _, err := c.engine.Transport().Manifest(ctx, name)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, define.ErrNotFound), p.Type == "local" && strings.Contains(err.Error(), "no descriptor found"):
		return false, nil
	}
	return false, err
}

// readResult is what an image in a cache says of a step. Its layer has been
// verified against its diff ID by the pull; that it lies on what the step
// stands on, and is of the step, is verified here.
func (s *stage) readResult(key digest.Digest, id define.ImageID) (*cache.Result, error) {
	stored, err := image.Load(s.b.engine.Store(), id)
	if err != nil {
		return nil, err
	}
	labels := stored.Image.Config.Labels
	if labels[labelCacheKey] != key.String() {
		return nil, fmt.Errorf("holds another step than its tag says: %w", define.ErrInvalid)
	}
	r := &cache.Result{}
	if stored.Image.Created != nil {
		r.Created = stored.Image.Created.UTC()
	}
	if labels[labelCacheLayer] == "none" {
		return r, nil
	}
	l, err := s.b.engine.Store().Raw().Layer(string(stored.TopLayer))
	if err != nil {
		return nil, fmt.Errorf("reading its layer: %w", err)
	}
	if l.Parent != string(s.top) {
		return nil, fmt.Errorf("its layer lies on another than the step does: %w", define.ErrInvalid)
	}
	r.Layer, r.DiffID, r.Size = define.LayerID(l.ID), l.UncompressedDigest, l.UncompressedSize
	return r, nil
}

// forget drops the record of an image that only carried a layer; the layer
// stays, and the cache's record tells prune of it.
func (c *remoteCache) forget(id define.ImageID, name string) {
	raw := c.engine.Store().Raw()
	rec, err := raw.Image(string(id))
	if err != nil {
		return
	}
	for _, n := range rec.Names {
		if n != name {
			_ = raw.RemoveNames(rec.ID, []string{name})
			return
		}
	}
	_ = raw.Delete(rec.ID) // of the record alone
}

// exporters is how many results are written to a repository at once.
const exporters = 4

// export writes the results of the run's steps to the places that do not have
// them.
func (c *remoteCache) export(ctx context.Context) {
	if c == nil || len(c.to) == 0 {
		return
	}
	for _, p := range c.to {
		written := c.exportTo(ctx, p)
		text := fmt.Sprintf("cache %s: %d of %d results written", p.Ref, written, len(c.results))
		if len(c.working([]CachePlace{p})) > 0 && ctx.Err() == nil && written < len(c.results) {
			text += ", the others were there"
		}
		define.Emit(c.engine.Listener(), define.Event{Kind: define.EventNote, Text: text})
	}
}

// exportTo writes results to one place, several at once: each after those that
// write layers of its own, so that no layer is sent twice. A layout has one
// index and is written one by one.
func (c *remoteCache) exportTo(ctx context.Context, p CachePlace) int {
	slots := make(chan struct{}, exporters)
	if p.Type == "local" {
		slots = make(chan struct{}, 1)
	}
	var written atomic.Int64
	var all sync.WaitGroup
	done := make([]chan struct{}, len(c.results))
	for i := range done {
		done[i] = make(chan struct{})
	}
	waits := exportOrder(c.results)
	for i, r := range c.results {
		all.Go(func() {
			defer close(done[i])
			for _, w := range waits[i] {
				<-done[w]
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			if len(c.working([]CachePlace{p})) == 0 || ctx.Err() != nil {
				return
			}
			new, err := c.exportResult(ctx, p, r)
			switch {
			case err != nil && ctx.Err() == nil:
				c.giveUp(p, "written to", err)
			case new:
				written.Add(1)
			}
		})
	}
	all.Wait()
	return int(written.Load())
}

// exportOrder says for each result which others are written before it: the
// first of its parent's layer, and the first of its own.
func exportOrder(results []remoteResult) [][]int {
	first := map[define.LayerID]int{}
	for i, r := range results {
		if _, ok := first[r.result.Layer]; !ok && r.result.Layer != "" {
			first[r.result.Layer] = i
		}
	}
	order := make([][]int, len(results))
	for i, r := range results {
		if r.result.Layer == "" {
			continue // it has no layers at all
		}
		if own := first[r.result.Layer]; own != i {
			order[i] = append(order[i], own)
		} else if n, ok := first[r.parent]; ok {
			order[i] = append(order[i], n)
		}
	}
	return order
}

func (c *remoteCache) exportResult(ctx context.Context, p CachePlace, r remoteResult) (bool, error) {
	name := p.name(r.key)
	if there, err := c.has(ctx, p, name); err != nil || there {
		return false, err
	}
	id, err := c.record(r)
	if err != nil {
		return false, err
	}
	defer c.forget(id, "")
	_, err = c.engine.Transport().Push(ctx, id, name, transport.PushOptions{Format: define.FormatOCI})
	return err == nil, err
}

// record makes the image that carries a result.
func (c *remoteCache) record(r remoteResult) (define.ImageID, error) {
	img := image.New(r.platform)
	img.Created = &r.result.Created
	img.Config.Labels = map[string]string{labelCacheKey: r.key.String()}
	if r.result.Layer == "" {
		img.Config.Labels[labelCacheLayer] = "none"
	}
	return c.recordImage(img, r.result.Layer)
}

// recordImage records an image of a chain of the store.
func (c *remoteCache) recordImage(img *image.Image, top define.LayerID) (define.ImageID, error) {
	layers, err := c.chain(top)
	if err != nil {
		return "", err
	}
	enc, err := img.Encode(define.FormatOCI, layers)
	if err != nil {
		return "", err
	}
	return enc.ID, image.Record(c.engine.Store(), enc, top, nil)
}

// chain are the layers of the store up to one, as they are there.
func (c *remoteCache) chain(top define.LayerID) ([]image.Layer, error) {
	var layers []image.Layer
	for id := string(top); id != ""; {
		l, err := c.engine.Store().Raw().Layer(id)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", id, err)
		}
		layers = append(layers, image.Layer{DiffID: l.UncompressedDigest, Digest: l.UncompressedDigest, Size: l.UncompressedSize})
		id = l.Parent
	}
	slices.Reverse(layers)
	return layers, nil
}
