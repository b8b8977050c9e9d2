package imagebuildah

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// finish records the images and writes the outputs.
func finish(ctx context.Context, builds []*build) (*Result, error) {
	b := builds[0]
	b.unusedArgs()
	b.checkInline()
	names, err := b.names()
	if err != nil {
		return nil, err
	}
	if b.label != "" {
		return finishList(ctx, builds, names)
	}
	r, err := b.commit(ctx, names)
	if err != nil {
		return nil, err
	}
	if err := b.joinList(ctx, r); err != nil {
		return nil, err
	}
	return r, b.writeOutputs(ctx, b.target(), r)
}

func (b *build) target() *stage { return b.stages[b.graph.Target] }

// commit records the target's image.
func (b *build) commit(ctx context.Context, names []string) (*Result, error) {
	s := b.target()
	if err := s.materialize(ctx); err != nil {
		return nil, err
	}
	if err := b.saveStages(ctx); err != nil {
		return nil, err
	}
	b.applyFlags(s)
	if err := s.datePast(ctx); err != nil {
		return nil, err
	}
	if err := b.scan(ctx, s); err != nil {
		return nil, err
	}
	b.noteCreated(s, s.created())
	steps, err := s.stepResults(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.c.Commit(ctx, builder.CommitOptions{Names: names, Format: b.opts.Format, Squash: b.opts.Squash, SquashAll: b.opts.SquashAll,
		Layer: b.freezeOptions(), Created: b.opts.fixedTime(), Steps: steps})
	if err != nil {
		return nil, err
	}
	for _, field := range c.Lost {
		b.warn("left out, because the format " + string(b.opts.Format) + " cannot hold them: " + field)
	}
	return &Result{ImageID: c.ID, Digest: c.Digest, MediaType: c.MediaType, Size: c.Size, Names: c.Names}, nil
}

func (r *run) warn(text string) {
	define.Emit(r.engine.Listener(), define.Event{Kind: define.EventWarning, Text: text})
}

// applyFlags sets what flags say about the image; they win over the file.
func (b *build) applyFlags(s *stage) {
	b.opts.Settings.unset(s.c.Image)
	for _, kv := range b.opts.Labels {
		k, v, _ := strings.Cut(kv, "=")
		s.setLabel(k, v)
	}
	switch {
	case b.opts.Format == define.FormatDocker:
		// Nobody asked for them, so nobody is warned of their loss.
		delete(s.c.Image.Annotations, "org.opencontainers.image.base.name")
		delete(s.c.Image.Annotations, "org.opencontainers.image.base.digest")
	case s.c.Base.Name != "":
		annotate(s, "org.opencontainers.image.base.name", s.c.Base.Name)
		annotate(s, "org.opencontainers.image.base.digest", s.c.Base.Digest)
	}
	for _, kv := range b.opts.Annotations {
		k, v, _ := strings.Cut(kv, "=")
		annotate(s, k, v)
	}
}

func annotate(s *stage, key, value string) {
	if s.c.Image.Annotations == nil {
		s.c.Image.Annotations = map[string]string{}
	}
	s.c.Image.Annotations[key] = value
}

// datePast gives the history entries without a time that of a neighbour, so
// that a build whose steps all come from the cache gives the same image.
func (s *stage) datePast(ctx context.Context) error {
	h := s.c.Image.History
	var known *time.Time
	for i := range h {
		if h[i].Created != nil {
			known = h[i].Created
			break
		}
	}
	if known == nil && len(h) > 0 {
		t, err := s.firstBuilt(ctx)
		if err != nil {
			return err
		}
		known = &t
	}
	for i := range h {
		if h[i].Created == nil {
			h[i].Created = known
		} else {
			known = h[i].Created
		}
	}
	return nil
}

// firstBuilt is when an image without any file was built for the first time:
// nothing else in it carries a time.
func (s *stage) firstBuilt(ctx context.Context) (time.Time, error) {
	k := s.baseKey("image")
	text, err := json.Marshal(s.c.Image)
	if err != nil {
		return time.Time{}, err
	}
	k.Add("configuration", string(text))
	c := s.b.engine.Cache()
	if !s.neverCached() {
		r, ok, err := c.Lookup(ctx, k)
		if err != nil {
			return time.Time{}, err
		}
		if ok && !s.expired(r) {
			return r.Created, nil
		}
	}
	now := time.Now().UTC()
	return now, c.Save(ctx, cache.Slot{Build: s.b.identity, Stage: s.name(), Instruction: "image"}, k, cache.Result{Created: now})
}

// names are the full names of -t, when the store is among the outputs.
func (b *build) names() ([]string, error) {
	var names []string
	for _, tag := range b.opts.Tags {
		if transport.IsTransport(tag) {
			continue
		}
		full, err := transport.NormalizeTag(tag)
		if err != nil {
			return nil, err
		}
		names = append(names, full)
	}
	if b.label != "" && b.opts.Manifest != "" {
		full, err := transport.NormalizeTag(b.opts.Manifest)
		if err != nil {
			return nil, err
		}
		return append(names, full), nil
	}
	if !b.toStore() {
		return nil, nil
	}
	return names, nil
}
