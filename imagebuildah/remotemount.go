package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// The directories of RUN --mount=type=cache in caches elsewhere: an image of
// one layer for each id and platform. They are written where the place asks
// for it (CachePlace.Mounts), and looked for whenever one is to be made that
// the store does not have. See docs/design/cache.md.

// labelCacheMount is the key of the directory that an image holds.
const labelCacheMount = "io.strata.cache.mount"

const (
	// maxCacheMount bounds a directory that is taken from elsewhere, in bytes.
	maxCacheMount = 16 << 30
	// mountPatience is how long the end of a build waits for another build's
	// step that uses a directory.
	mountPatience = 30 * time.Second
)

// errMountImport marks a directory that could not be taken from elsewhere; it
// begins empty then.
var errMountImport = errors.New("taking the cache mount from elsewhere")

// cacheMount is a directory that the run's steps have used.
type cacheMount struct {
	id       string
	platform define.Platform
}

func (m cacheMount) key() digest.Digest {
	return digest.FromString("cache mount\x00" + define.FormatPlatform(m.platform) + "\x00" + m.id)
}

// noteMount remembers a directory for export.
func (c *remoteCache) noteMount(m cacheMount) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := m.key()
	if !c.noted[key] {
		c.noted[key] = true
		c.mounts = append(c.mounts, m)
	}
}

// fromElsewhere lets a directory that is to be made begin with what a cache
// elsewhere has of its id.
func (s *stage) fromElsewhere(c *runmount.Cache) {
	r := s.b.remote
	if r == nil || c.Base != "" {
		return
	}
	m := cacheMount{id: c.ID, platform: s.platform}
	r.noteMount(m)
	if len(r.from) > 0 {
		c.Seed = func(ctx context.Context, to *copier.Root) error { return s.importMount(ctx, m, to) }
	}
}

// importMount copies a directory from the first place that has it.
func (s *stage) importMount(ctx context.Context, m cacheMount, to *copier.Root) error {
	r := s.b.remote
	for _, p := range r.working(r.from) {
		name := p.name(m.key())
		there, err := r.has(ctx, p, name)
		if err == nil && there {
			if err = s.fetchMount(ctx, name, m, to); err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			// Half a directory is there: it is made anew.
			return fmt.Errorf("%w %s: %w", errMountImport, p.Ref, err)
		}
		if err != nil {
			r.giveUp(p, "asked", err)
		}
	}
	return nil
}

func (s *stage) fetchMount(ctx context.Context, name string, m cacheMount, to *copier.Root) error {
	c, err := s.b.engine.From(ctx, builder.FromOptions{Image: name, Platform: m.platform, Pull: define.PullAlways, Space: s.b.space})
	if err != nil {
		return err
	}
	defer c.Close()
	defer s.b.remote.forget(c.Base.ID, c.Base.Name)
	if c.Image.Config.Labels[labelCacheMount] != m.key().String() {
		return fmt.Errorf("holds another directory than its tag says: %w", define.ErrInvalid)
	}
	top := c.Top()
	if top == nil {
		return nil // it was empty
	}
	info, err := top.Wait(ctx)
	if err != nil {
		return err
	}
	// The record is dropped; prune learns of the layer here.
	if err := s.b.engine.Cache().Note(ctx, info.ID); err != nil {
		return err
	}
	if info.Size > maxCacheMount {
		return fmt.Errorf("holds more than %d bytes: %w", int64(maxCacheMount), define.ErrInvalid)
	}
	return c.View(ctx, func(root *copier.Root) error {
		sel, err := root.Select(ctx, copier.Select{Patterns: []string{"."}})
		if err != nil {
			return err
		}
		return sel.Put(ctx, to, copier.Put{Dest: "/", IgnoreChownErrors: s.b.engine.SingleID()})
	})
}

// withoutImports is what is asked for when a directory could not be taken from
// elsewhere.
func withoutImports(want []runmount.Cache) []runmount.Cache {
	for i := range want {
		if want[i].Base == "" {
			want[i].Seed = nil
		}
	}
	return want
}

// exportMounts writes the directories that the run's steps have used.
func (r *run) exportMounts(ctx context.Context) {
	if r.remote == nil || len(r.remote.mounts) == 0 {
		return
	}
	var places []CachePlace
	for _, p := range r.remote.to {
		if p.Mounts {
			places = append(places, p)
		}
	}
	for _, m := range r.remote.mounts {
		if len(places) == 0 || ctx.Err() != nil {
			return
		}
		if err := r.exportMount(ctx, m, places); err != nil && ctx.Err() == nil {
			r.warn(fmt.Sprintf("the cache mount %q is not written to the cache: %v", m.id, err))
		}
	}
}

func (r *run) exportMount(ctx context.Context, m cacheMount, places []CachePlace) error {
	id, err := r.recordMount(ctx, m)
	if err != nil {
		return err
	}
	defer r.remote.forget(id, "")
	for _, p := range r.remote.working(places) {
		if _, err := r.engine.Transport().Push(ctx, id, p.name(m.key()), transport.PushOptions{Format: define.FormatOCI}); err != nil {
			r.remote.giveUp(p, "written to", err)
			continue
		}
		define.Emit(r.engine.Listener(), define.Event{Kind: define.EventNote, Text: fmt.Sprintf("cache %s: the cache mount %q is written", p.Ref, m.id)})
	}
	return nil
}

// recordMount makes the image of a directory. No step changes it meanwhile.
func (r *run) recordMount(ctx context.Context, m cacheMount) (define.ImageID, error) {
	wait, cancel := context.WithTimeoutCause(ctx, mountPatience, fmt.Errorf("another build's step has used it for %s", mountPatience))
	defer cancel()
	held, err := runmount.AcquireCaches(wait, r.engine.Store(), []runmount.Cache{{ID: m.id, Sharing: runmount.Locked}}, nil)
	if err != nil {
		return "", err
	}
	defer held.Close()
	root, err := copier.NewRoot(held.Trees[0])
	if err != nil {
		return "", err
	}
	defer root.Close()
	c, err := r.engine.From(ctx, builder.FromOptions{Image: "scratch", Platform: m.platform, Space: r.space})
	if err != nil {
		return "", err
	}
	defer c.Close()
	sel, err := root.Select(ctx, copier.Select{Patterns: []string{"."}})
	if err != nil {
		return "", err
	}
	if err := c.Add(ctx, builder.Add{Dest: "/", Selections: []*copier.Selection{sel}, KeepOwner: true}); err != nil {
		return "", err
	}
	made, err := c.Seal(ctx, (&build{run: r}).freezeOptions())
	if err != nil {
		return "", err
	}
	info, err := made.Wait(ctx)
	if err != nil {
		return "", err
	}
	if err := r.engine.Cache().Note(ctx, info.ID); err != nil {
		return "", err
	}
	img := image.New(m.platform)
	img.Config.Labels = map[string]string{labelCacheMount: m.key().String()}
	return r.remote.recordImage(img, info.ID)
}
