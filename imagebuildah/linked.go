package imagebuildah

import (
	"context"
	"errors"
	"time"

	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/define"
)

// Linked steps (COPY --link, ADD --link) are made on an empty root. Their
// results have two records: below the parent that they were made on, where the
// layer is taken as it is, and below any, where its content is put on another
// parent: files are linked and the stream is read once, nothing is copied.

// linkedKey returns the key of a linked step below any parent.
func linkedKey(k *cache.Key) *cache.Key {
	full := &cache.Key{}
	full.Add("parent", "any (--link)")
	return addParts(full, k)
}

// lookupLinked finds the result of a linked step that lies on another parent,
// and puts its content on the present one.
func (s *stage) lookupLinked(ctx context.Context, f fsStep, step *define.Step, asked []*cache.Key) (bool, error) {
	for _, k := range asked {
		full := linkedKey(k)
		r, ok, err := s.b.engine.Cache().Lookup(ctx, full)
		if err != nil {
			return false, err
		}
		if !ok || r.Layer == "" || s.expired(r) {
			continue
		}
		err = s.graft(ctx, f, step, asked, r)
		if errors.Is(err, define.ErrNotFound) {
			return false, nil // it has just been pruned
		}
		return err == nil, err
	}
	return false, nil
}

func (s *stage) graft(ctx context.Context, f fsStep, step *define.Step, asked []*cache.Key, r *cache.Result) error {
	if err := s.materialize(ctx); err != nil {
		return err
	}
	parent := s.c.Top()
	made, err := s.c.Graft(ctx, r.Layer)
	if err != nil {
		return err
	}
	s.noteStep(asked[len(asked)-1], layerRef{made: parent}, layerRef{made: made}, r.Created)
	slot, result, shown := s.slot(f.in, step), *r, r.Layer
	record := func(ctx context.Context) error {
		below, err := parent.Wait(ctx)
		if err != nil {
			return err
		}
		info, err := made.Wait(ctx)
		if err != nil {
			return err
		}
		result.Layer, result.DiffID, result.Size = info.ID, info.DiffID, info.Size
		for i := range asked {
			// The last key tells by contents and has the step's own slot.
			k, slot := asked[len(asked)-1-i], slot
			if i > 0 {
				slot = quickSlot(slot)
			}
			s.saveKey(ctx, f, slot, k, below.ID, result)
		}
		return nil
	}
	if s.missed {
		s.b.running.Go(func() {
			if err := record(s.b.outer); err != nil {
				s.b.cancel(s.fail(f.in, err))
			}
		})
	} else {
		// The steps behind are looked up below the new layer.
		if err := record(ctx); err != nil {
			return err
		}
		s.top, shown = result.Layer, result.Layer
	}
	s.descend(asked[len(asked)-1])
	s.reportCached(f, step, &cache.Result{Layer: shown, Created: r.Created})
	return nil
}

// executeLinked executes a linked step of a build without layers, in which it
// is a layer of its own all the same.
func (s *stage) executeLinked(ctx context.Context, f fsStep, step *define.Step) error {
	if err := s.end(ctx); err != nil {
		return err
	}
	s.missed, s.openEntry = true, 0
	if _, err := s.execute(ctx, f, step); err != nil {
		return err
	}
	now := time.Now().UTC()
	s.addHistory(f.createdBy, &now, false)
	return s.end(ctx)
}
