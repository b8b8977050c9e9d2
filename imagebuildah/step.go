package imagebuildah

import (
	"context"
	"time"

	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// fsStep is an instruction that may change the root.
type fsStep struct {
	in        *containerfile.Instruction
	createdBy string
	// keys give the step's cache keys without the parent, cheapest first.
	// Each is asked for only when those before it had no hit.
	// The last one tells by contents and is asked for before the step is
	// executed; the others must be good to ask for at any time.
	keys []keyFunc
	// keyAfter: when nothing is looked up, the last key is asked for after the
	// execution, which has read all that it takes.
	keyAfter bool
	// here tells the step from others of this run without reading a file, for
	// steps whose keys are asked for after the execution; nil when it cannot.
	here *cache.Key
	// linked: the result does not depend on what is below (COPY --link), so
	// it is looked up, and found, below any chain.
	linked bool
	// exec leaves its changes open in the stage's container. It reports
	// whether there are any.
	exec func(context.Context, *define.Step) (changed bool, err error)
}

// quickSlot keeps the cheap keys of a step apart: a miss is explained by
// comparing contents with contents.
func quickSlot(s cache.Slot) cache.Slot {
	s.Instruction += " by layer"
	return s
}

type keyFunc = func(context.Context) (*cache.Key, error)

// looksUp reports whether the next step may come from the cache.
func (s *stage) looksUp(linked bool) bool { return (linked || !s.missed) && !s.neverCached() }

// layerStep finds the step in the cache or executes it.
func (s *stage) layerStep(ctx context.Context, f fsStep) error {
	step := s.nextStep(f.in)
	if !s.b.opts.layers() {
		if f.linked {
			return s.executeLinked(ctx, f, step)
		}
		return s.executeOpen(ctx, f, step)
	}
	var keys []*cache.Key
	if s.looksUp(f.linked) {
		hit, asked, err := s.lookup(ctx, f, step)
		if err != nil || hit {
			return err
		}
		keys = asked
	}
	asked := keys
	var later []keyFunc
	last := len(f.keys) - 1
	if keys != nil {
		// The key that tells by contents is the step's own; see save.
		keys = append([]*cache.Key{keys[last]}, keys[:last]...)
	} else {
		// The cheap keys may wait for layers that are being committed.
		later = f.keys[:last]
		if !f.keyAfter {
			k, err := f.keys[last](ctx)
			if err != nil {
				return err
			}
			keys = []*cache.Key{k}
		}
	}
	var fl *flight
	same := f.here
	if len(keys) > 0 {
		same = keys[0]
	}
	if id := s.descends(same); id != "" {
		var others bool
		if fl, others = s.b.flights.join(id); others {
			return s.useFlight(ctx, f, step, fl)
		}
	}
	err := s.explainMiss(ctx, f, step, asked)
	if err == nil {
		err = s.executeLayer(ctx, f, step, keys, later, fl)
	}
	if err != nil {
		fl.land(cache.Result{}, err)
	}
	return err
}

// lookup asks the cache under each key in turn.
func (s *stage) lookup(ctx context.Context, f fsStep, step *define.Step) (hit bool, asked []*cache.Key, err error) {
	for _, make := range f.keys {
		k, err := make(ctx)
		if err != nil {
			return false, nil, err
		}
		asked = append(asked, k)
		if s.missed {
			continue // a linked step: see below
		}
		full := withParent(k, s.top)
		r, ok, err := s.b.engine.Cache().Lookup(ctx, full)
		if err != nil {
			return false, nil, err
		}
		if !ok || s.expired(r) {
			continue
		}
		return true, nil, s.useCached(ctx, f, step, full, asked, r)
	}
	if f.linked {
		hit, err = s.lookupLinked(ctx, f, step, asked)
	}
	if !hit && err == nil && !s.missed {
		hit, err = s.lookupRemote(ctx, f, step, asked)
	}
	return hit, asked, err
}

// useCached takes a recorded result in place of executing the step.
func (s *stage) useCached(ctx context.Context, f fsStep, step *define.Step, k *cache.Key, asked []*cache.Key, r *cache.Result) error {
	c := s.b.engine.Cache()
	slot := s.slot(f.in, step)
	if err := c.Seen(ctx, slot, k); err != nil {
		return err
	}
	for _, quick := range asked[:len(asked)-1] {
		if err := c.Save(ctx, quickSlot(slot), withParent(quick, s.top), *r); err != nil {
			return err
		}
	}
	s.b.remote.note(s, k, s.top, *r)
	if err := s.noteCached(ctx, f, asked, r); err != nil {
		return err
	}
	if r.Layer != "" {
		s.top, s.adopted = r.Layer, false
	}
	s.descend(asked[len(asked)-1])
	s.reportCached(f, step, r)
	return nil
}

// reportCached records and reports a step that was not executed.
func (s *stage) reportCached(f fsStep, step *define.Step, r *cache.Result) {
	created := r.Created.UTC()
	s.addHistory(f.createdBy, &created, r.Layer == "")
	s.b.cached.Add(1)
	s.emit(define.Event{Kind: define.EventStepCached, Step: step, Layer: r.Layer})
	if s.b.opts.Explain {
		text := "found in the cache; it changes no file"
		if r.Layer != "" {
			text = "found in the cache: layer " + string(r.Layer)
		}
		s.emit(define.Event{Kind: define.EventExplain, Step: step, Text: text, Layer: r.Layer})
	}
}

// explainMiss says why the step is executed.
func (s *stage) explainMiss(ctx context.Context, f fsStep, step *define.Step, asked []*cache.Key) error {
	if !s.b.opts.Explain {
		return nil
	}
	text := "the step before it was executed"
	switch {
	case s.b.opts.NoCache:
		text = "--no-cache was given"
	case s.neverCached():
		text = "--no-cache-filter names the stage"
	case len(asked) > 0:
		full := withParent(asked[len(asked)-1], s.top)
		if f.linked {
			full = linkedKey(asked[len(asked)-1])
		}
		e, err := s.b.engine.Cache().Explain(ctx, s.slot(f.in, step), full)
		if err != nil {
			return err
		}
		text = e.Text
	}
	s.emit(define.Event{Kind: define.EventExplain, Step: step, Text: "executed: " + text})
	return nil
}

// execute runs the step's work between its events.
func (s *stage) execute(ctx context.Context, f fsStep, step *define.Step) (changed bool, err error) {
	select {
	case s.b.slots <- struct{}{}:
		defer func() { <-s.b.slots }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	start := time.Now()
	s.emit(define.Event{Kind: define.EventStepStart, Step: step})
	changed, err = f.exec(ctx, step)
	s.b.executed.Add(1)
	s.emit(define.Event{Kind: define.EventStepDone, Step: step, Elapsed: time.Since(start), Err: err})
	return changed, err
}

// executeOpen executes without making a layer (--layers=false).
func (s *stage) executeOpen(ctx context.Context, f fsStep, step *define.Step) error {
	s.missed = true
	changed, err := s.execute(ctx, f, step)
	if err != nil {
		return err
	}
	// One layer holds all changes of the stage: the latest entry that made
	// some stands for it.
	if changed {
		s.markOpenHistoryEmpty()
	}
	now := time.Now().UTC()
	s.addHistory(f.createdBy, &now, !changed)
	if changed {
		s.openEntry = len(s.c.Image.History)
	}
	return nil
}

func (s *stage) markOpenHistoryEmpty() {
	if s.openEntry > 0 {
		s.c.Image.History[s.openEntry-1].EmptyLayer = true
	}
}

// executeLayer executes and seals, and records the result once the layer is
// in the store.
func (s *stage) executeLayer(ctx context.Context, f fsStep, step *define.Step, keys []*cache.Key, later []keyFunc, fl *flight) error {
	if err := s.materialize(ctx); err != nil {
		return err
	}
	parent := s.c.Top()
	s.missed = true
	changed, err := s.execute(ctx, f, step)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		k, err := f.keys[len(f.keys)-1](ctx)
		if err != nil {
			return err
		}
		keys = []*cache.Key{k}
	}
	created := time.Now().UTC()
	var made *layer.Layer
	if changed {
		if made, err = s.c.Seal(ctx, s.b.freezeOptions()); err != nil {
			return err
		}
	} else if err := s.c.Rollback(); err != nil {
		return err
	}
	s.addHistory(f.createdBy, &created, made == nil)
	s.descend(keys[0])
	fl.is(keys[0])
	helped := s.helped
	s.helped = false
	if helped {
		fl.isUnkept()
	} else {
		s.noteStep(keys[0], layerRef{made: parent}, layerRef{made: made}, created)
	}
	slot := s.slot(f.in, step)
	s.b.running.Go(func() {
		result, err := s.save(s.b.outer, f, slot, parent, made, created, func(ctx context.Context) ([]*cache.Key, error) {
			if helped {
				return nil, nil
			}
			for _, make := range later {
				k, err := make(ctx)
				if err != nil {
					return nil, err
				}
				keys = append(keys, k)
			}
			return keys, nil
		})
		fl.land(result, err)
		if err != nil {
			s.b.cancel(s.fail(f.in, err))
		}
	})
	return nil
}

// save records what the step made, under each of its keys, of which the first
// tells by contents.
func (s *stage) save(ctx context.Context, f fsStep, slot cache.Slot, parent, made *layer.Layer, created time.Time,
	keysOf func(context.Context) ([]*cache.Key, error)) (result cache.Result, err error) {
	var top define.LayerID
	if parent != nil {
		info, err := parent.Wait(ctx)
		if err != nil {
			return result, err
		}
		top = info.ID
	}
	result.Created = created
	if fixed := s.b.opts.fixedTime(); fixed != nil {
		result.Created = *fixed
	}
	if made != nil {
		info, err := made.Wait(ctx)
		if err != nil {
			return result, err
		}
		result.Layer, result.DiffID, result.Size = info.ID, info.DiffID, info.Size
	}
	keys, err := keysOf(ctx)
	if err != nil {
		return result, err
	}
	for i, k := range keys {
		slot := slot
		if i > 0 {
			slot = quickSlot(slot)
		}
		s.saveKey(ctx, f, slot, k, top, result)
	}
	return result, nil
}

// saveKey records a result below its parent, and that of a linked step for all
// parents.
func (s *stage) saveKey(ctx context.Context, f fsStep, slot cache.Slot, k *cache.Key, parent define.LayerID, r cache.Result) {
	c := s.b.engine.Cache()
	var err error
	if f.linked {
		err = c.Save(ctx, slot, linkedKey(k), r)
		slot = quickSlot(slot)
	}
	full := withParent(k, parent)
	if err == nil {
		err = c.Save(ctx, slot, full, r)
	}
	s.b.remote.note(s, full, parent, r)
	if err != nil {
		// The layer is in the store and the build is right without it.
		s.emit(define.Event{Kind: define.EventWarning, Text: "the step could not be recorded in the cache: " + err.Error()})
	}
}
