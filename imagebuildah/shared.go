package imagebuildah

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/define"
)

// flights are the steps that a run executes, by what they are: a step that
// several stages need is executed by the one that comes first, and the others
// take its result. (The cache cannot do this: it knows a step when its layer
// is in the store.)
type flights struct {
	mu   sync.Mutex
	byID map[digest.Digest]*flight
}

// flight is one step; the others are set when done is closed.
type flight struct {
	done chan struct{}
	// key tells the step by contents.
	key *cache.Key
	// unkept: the result is not for the cache.
	unkept bool
	result cache.Result
	err    error
}

// join returns the step's flight, and whether somebody else executes it.
func (f *flights) join(id digest.Digest) (fl *flight, others bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.byID[id]; ok {
		return fl, true
	}
	if f.byID == nil {
		f.byID = map[digest.Digest]*flight{}
	}
	fl = &flight{done: make(chan struct{})}
	f.byID[id] = fl
	return fl, false
}

func (f *flight) is(k *cache.Key) {
	if f != nil {
		f.key = k
	}
}

func (f *flight) isUnkept() {
	if f != nil {
		f.unkept = true
	}
}

func (f *flight) land(r cache.Result, err error) {
	if f == nil {
		return
	}
	f.result, f.err = r, err
	close(f.done)
}

// descend notes that the stage's root now is what the step of this key makes
// of what it was. Equal descents have equal roots, whether their layers' IDs
// are known or not; "" is not known.
func (s *stage) descend(k *cache.Key) { s.descent = s.descends(k) }

// descends is the descent after the step. A build of one stage does not ask.
func (s *stage) descends(k *cache.Key) digest.Digest {
	if k == nil || s.descent == "" {
		return ""
	}
	return digest.FromString(s.descent.String() + " " + k.Digest().String())
}

// alone reports that no other stage could need the same step.
func alone(builds []*build) bool {
	n := 0
	for _, b := range builds {
		n += len(b.graph.Needed)
	}
	return n < 2
}

// useFlight waits for another stage to execute the step, and takes its result.
func (s *stage) useFlight(ctx context.Context, f fsStep, step *define.Step, fl *flight) error {
	select {
	case <-fl.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if fl.err != nil {
		// The stage that executed it says so.
		<-ctx.Done()
		return context.Cause(ctx)
	}
	top := fl.result.Layer
	if top == "" {
		var err error
		if top, err = s.topID(ctx); err != nil {
			return err
		}
	}
	if !fl.unkept {
		s.noteStep(fl.key, s.below(), layerRef{id: fl.result.Layer}, fl.result.Created)
	}
	// The step is in the cache by now, and so may be the next.
	s.top, s.adopted, s.missed = top, top == "", false
	s.descend(fl.key)
	s.reportCached(f, step, &fl.result)
	return nil
}
