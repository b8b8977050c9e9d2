package ui

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stratabuild/strata/define"
)

// plain writes lines that never change, for logs and CI:
//
//	STEP 2/5: RUN make
//	--> Using cache 1f3c9a2b4d5e
//
// The output of a step passes through unchanged while it is the only one that
// runs; while several run, and in builds for several platforms, each of its
// lines has the step's platform and stage in front.
type plain struct {
	mu    sync.Mutex
	out   io.Writer
	paint painter

	total   int          // steps of the build
	header  map[int]bool // steps whose STEP line is written
	running map[int]*define.Step
	partial map[int][]byte // unfinished prefixed lines
	tails   tails
	last    int  // the step that wrote output last
	midLine bool // what was written last did not end its line

	transfers map[string]time.Time // when each was last spoken of
}

func newPlain(o Options) *plain {
	return &plain{
		out: o.Out, paint: painter(o.Colour), header: map[int]bool{}, running: map[int]*define.Step{},
		partial: map[int][]byte{}, transfers: map[string]time.Time{},
	}
}

// transferPause is how long a transfer may go on before it is mentioned
// again: signs of life, not a flood.
const transferPause = 15 * time.Second

func (p *plain) Event(e define.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tails.event(e)
	switch e.Kind {
	case define.EventPlan:
		p.total = e.Of
	case define.EventStepStart:
		p.stepLine(e.Step)
		if e.Step != nil {
			step := *e.Step
			p.running[step.ID] = &step
		}
	case define.EventStepOutput:
		p.output(e)
	case define.EventStepCached:
		p.stepLine(e.Step)
		p.line(p.prefix(e.Step) + p.paint.green("--> Using cache") + after(" ", shortLayer(e.Layer)))
		p.forget(e.Step)
	case define.EventStepDone:
		p.done(e)
	case define.EventExplain:
		p.stepLine(e.Step)
		p.line(p.prefix(e.Step) + p.paint.cyan("--> "+Clean(e.Text)))
	case define.EventTransfer:
		p.transfer(e)
	case define.EventNote:
		p.line(sentence(e.Text))
	case define.EventWarning:
		p.line(p.paint.yellow("Warning:") + " " + place(e.File, e.Line) + sentence(e.Text))
	case define.EventImage:
		for _, n := range e.Names {
			p.line("Successfully tagged " + Clean(n))
		}
	}
}

func after(sep, s string) string {
	if s == "" {
		return ""
	}
	return sep + s
}

// prefix names the stage where the build has more than one.
func (p *plain) prefix(s *define.Step) string {
	if s == nil || s.Platform == "" && p.total <= s.Of {
		return ""
	}
	return "[" + stepName(s) + "] "
}

func (p *plain) stepLine(s *define.Step) {
	if s == nil || p.header[s.ID] {
		return
	}
	p.header[s.ID] = true
	step := "STEP"
	if s.N <= s.Of { // else it is no part of a whole
		step = fmt.Sprintf("STEP %d/%d", s.N, s.Of)
	}
	p.line(p.prefix(s) + p.paint.bold(step+":") + " " + Clean(s.Text))
}

// line writes one line of ours, on a line of its own.
func (p *plain) line(s string) {
	if p.midLine {
		s = "\n" + s
	}
	p.midLine = false
	_, _ = io.WriteString(p.out, s+"\n")
}

func (p *plain) output(e define.Event) {
	if e.Step == nil || len(e.Data) == 0 {
		return
	}
	id := e.Step.ID
	p.last = id
	if len(p.running) <= 1 && len(p.partial[id]) == 0 && e.Step.Platform == "" {
		_, _ = p.out.Write(e.Data)
		p.midLine = e.Data[len(e.Data)-1] != '\n'
		return
	}
	p.prefixed(e.Step, e.Data)
}

// prefixed writes the complete lines of data with the stage in front, and
// keeps the rest, or cuts it when it becomes long.
func (p *plain) prefixed(s *define.Step, data []byte) {
	prefix := "[" + stepName(s) + "] "
	var b bytes.Buffer
	if p.midLine {
		b.WriteByte('\n')
		p.midLine = false
	}
	rest := append(p.partial[s.ID], data...)
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 && len(rest) <= MaxLine {
			break
		}
		if i < 0 {
			i = MaxLine
			b.WriteString(prefix)
			b.Write(rest[:i])
			b.WriteByte('\n')
			rest = rest[i:]
			continue
		}
		b.WriteString(prefix)
		b.Write(rest[:i+1])
		rest = rest[i+1:]
	}
	p.partial[s.ID] = append([]byte(nil), rest...)
	_, _ = p.out.Write(b.Bytes())
}

func (p *plain) done(e define.Event) {
	if e.Step == nil {
		return
	}
	if rest := p.partial[e.Step.ID]; len(rest) > 0 {
		p.line("[" + stepName(e.Step) + "] " + string(rest))
	}
	if e.Err == nil && e.Layer != "" {
		p.line(p.prefix(e.Step) + "--> " + shortLayer(e.Layer) + " " + p.paint.dim(seconds(e.Elapsed)))
	}
	p.forget(e.Step)
}

func (p *plain) forget(s *define.Step) {
	if s != nil {
		delete(p.running, s.ID)
		delete(p.partial, s.ID)
	}
}

func (p *plain) transfer(e define.Event) {
	key := e.Text + " " + e.Object
	if e.Done {
		delete(p.transfers, key)
		p.line(Clean(key) + after(" ", sizeIfKnown(e.Current)))
		return
	}
	spoken, ok := p.transfers[key]
	if !ok {
		p.transfers[key] = e.Time
		return
	}
	if e.Time.Sub(spoken) >= transferPause {
		p.transfers[key] = e.Time
		p.line(Clean(key) + " " + progress(e.Current, e.Total))
	}
}

func sizeIfKnown(n int64) string {
	if n <= 0 {
		return ""
	}
	return size(n)
}

func progress(current, total int64) string {
	if total <= 0 {
		return size(current)
	}
	return size(current) + " of " + size(total)
}

func (p *plain) Log(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(Clean(line))
}

// Fail leaves the output out that stands directly above.
func (p *plain) Fail(f Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var output []string
	if n := len(p.tails.lost); n > 0 && p.tails.lost[n-1].step.ID != p.last {
		output = p.tails.failed(f)
	}
	if p.midLine {
		_, _ = io.WriteString(p.out, "\n")
		p.midLine = false
	}
	report(p.out, p.paint, f, output)
}

func (p *plain) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.midLine {
		p.midLine = false
		_, _ = io.WriteString(p.out, "\n")
	}
}
