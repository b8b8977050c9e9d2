package ui

import (
	"fmt"
	"io"
	"sync"

	"github.com/stratabuild/strata/define"
)

// quiet shows failures, and explanations, which somebody asked for.
type quiet struct {
	mu    sync.Mutex
	out   io.Writer
	paint painter
	tails tails
}

func (q *quiet) Event(e define.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tails.event(e)
	if e.Kind == define.EventExplain {
		_, _ = fmt.Fprintln(q.out, explainLine(e))
	}
}

func (q *quiet) Log(string) {}

func (q *quiet) Fail(f Failure) {
	q.mu.Lock()
	defer q.mu.Unlock()
	report(q.out, q.paint, f, q.tails.failed(f))
}

func (q *quiet) Close() {}

func explainLine(e define.Event) string {
	if e.Step == nil {
		return Clean(e.Text)
	}
	return fmt.Sprintf("%s%s: %s", place(e.Step.File, e.Step.Line), Clean(e.Step.Text), Clean(e.Text))
}

// tails keeps the end of the output of the steps that run, and of those that
// failed.
type tails struct {
	running map[int]*tail
	lost    []failedStep
}

type failedStep struct {
	step define.Step
	tail *tail
}

// maxFailed bounds the failed steps that are kept: more do not fail at once.
const maxFailed = 64

func (t *tails) event(e define.Event) {
	if e.Step == nil {
		return
	}
	switch e.Kind {
	case define.EventStepOutput:
		t.of(e.Step.ID).Write(e.Data)
	case define.EventStepDone:
		if e.Err != nil && len(t.lost) < maxFailed {
			t.lost = append(t.lost, failedStep{*e.Step, t.of(e.Step.ID)})
		}
		delete(t.running, e.Step.ID)
	}
}

func (t *tails) of(id int) *tail {
	if t.running == nil {
		t.running = map[int]*tail{}
	}
	if t.running[id] == nil {
		t.running[id] = &tail{}
	}
	return t.running[id]
}

// failed returns the end of the output of the step that f is about: the
// failed step of that place, or the first that failed (others may have been
// stopped because of it).
func (t *tails) failed(f Failure) []string {
	for _, s := range t.lost {
		if s.step.File == f.File && s.step.Line == f.Line {
			return s.tail.Last(TailLines)
		}
	}
	if len(t.lost) > 0 && f.File == "" {
		return t.lost[0].tail.Last(TailLines)
	}
	return nil
}
