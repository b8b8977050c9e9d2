package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stratabuild/strata/define"
)

const (
	// frameTime is the pause between two drawings.
	frameTime = 80 * time.Millisecond
	// windowLines is how many lines of output a running step shows.
	windowLines = 6
	// maxTransfers is how many transfers are drawn; the rest is counted.
	maxTransfers = 5
)

// terminal draws the steps and transfers that are under way in a live region
// at the bottom, and what is finished as lines above it, which scroll away.
//
// Each frame is one write. The cursor is hidden and automatic wrapping is off
// only within a frame, so whatever ends this process leaves the terminal as
// it was; between frames the cursor stands below the region.
type terminal struct {
	out    io.Writer
	paint  painter
	signs  signs
	size   func() (int, int)
	start  time.Time
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once // Close

	mu        sync.Mutex
	total     int
	finished  int
	running   []*liveStep // in the order they began
	transfers []*liveTransfer
	reasons   map[int][]string // explanations that wait for their step's line
	ended     map[int]bool     // steps whose line is drawn
	pending   []string         // final lines, not drawn yet
	tails     tails

	drawMu sync.Mutex // held while a frame is written
	widths []int      // of the lines of the region as it was drawn
}

type liveStep struct {
	step  define.Step
	begin time.Time
}

type liveTransfer struct {
	action, object string
	current, total int64
	begin          time.Time
}

type signs struct{ done, failed, cached, running, bar, empty string }

func newTerminal(o Options) *terminal {
	t := &terminal{
		out: o.Out, paint: painter(o.Colour), size: o.Size, start: time.Now(),
		wake: make(chan struct{}, 1), closed: make(chan struct{}), reasons: map[int][]string{}, ended: map[int]bool{},
		signs: signs{"+", "x", "=", ">", "#", "-"},
	}
	if o.Unicode {
		t.signs = signs{"✓", "✗", "≡", "▸", "█", "░"}
	}
	go t.loop()
	return t
}

// loop draws while something is live. An idle display costs nothing.
func (t *terminal) loop() {
	for {
		select {
		case <-t.closed:
			return
		case <-t.wake:
		}
		select {
		case <-t.closed:
			return
		case <-time.After(frameTime):
		}
		t.draw(true)
		t.mu.Lock()
		live := len(t.running)+len(t.transfers) > 0
		t.mu.Unlock()
		if live {
			t.poke()
		}
	}
}

func (t *terminal) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *terminal) Event(e define.Event) {
	select {
	case <-t.closed:
		return
	default:
	}
	t.mu.Lock()
	t.update(e)
	t.mu.Unlock()
	t.poke()
}

func (t *terminal) update(e define.Event) {
	t.tails.event(e)
	switch e.Kind {
	case define.EventPlan:
		t.total = e.Of
	case define.EventStepStart:
		if e.Step != nil {
			t.running = append(t.running, &liveStep{*e.Step, e.Time})
		}
	case define.EventStepCached:
		t.finish(e, t.paint.green(t.signs.cached), "cached")
	case define.EventStepDone:
		if e.Err != nil {
			t.finish(e, t.paint.red(t.signs.failed), seconds(e.Elapsed))
		} else {
			t.finish(e, t.paint.green(t.signs.done), seconds(e.Elapsed))
		}
	case define.EventExplain:
		t.explain(e)
	case define.EventTransfer:
		t.transfer(e)
	case define.EventNote:
		t.pending = append(t.pending, "  "+sentence(e.Text))
	case define.EventWarning:
		t.pending = append(t.pending, t.paint.yellow("! ")+place(e.File, e.Line)+sentence(e.Text))
	case define.EventImage:
		for _, n := range e.Names {
			t.pending = append(t.pending, t.paint.green(t.signs.done)+" tagged "+t.paint.bold(Clean(n)))
		}
	}
}

func (t *terminal) explain(e define.Event) {
	line := "    " + t.paint.cyan(Clean(e.Text))
	if e.Step == nil || t.ended[e.Step.ID] {
		t.pending = append(t.pending, line)
		return
	}
	t.reasons[e.Step.ID] = append(t.reasons[e.Step.ID], line)
}

func (t *terminal) finish(e define.Event, sign, remark string) {
	if e.Step == nil {
		return
	}
	t.finished++
	t.ended[e.Step.ID] = true
	t.running = slices.DeleteFunc(t.running, func(l *liveStep) bool { return l.step.ID == e.Step.ID })
	t.pending = append(t.pending, sign+" "+t.describe(e.Step)+" "+t.paint.dim(remark))
	t.pending = append(t.pending, t.reasons[e.Step.ID]...)
	delete(t.reasons, e.Step.ID)
}

func (t *terminal) describe(s *define.Step) string {
	if s.N > s.Of {
		return Clean(s.Text) // no part of a whole
	}
	where := fmt.Sprintf("%d/%d", s.N, s.Of)
	if s.Platform != "" || t.total > s.Of {
		where = stepName(s) + " " + where
	}
	return t.paint.dim("["+where+"]") + " " + Clean(s.Text)
}

func (t *terminal) transfer(e define.Event) {
	i := slices.IndexFunc(t.transfers, func(l *liveTransfer) bool {
		return l.action == e.Text && l.object == e.Object
	})
	switch {
	case e.Done:
		if i >= 0 {
			t.transfers = slices.Delete(t.transfers, i, i+1)
		}
		t.pending = append(t.pending, t.paint.green(t.signs.done)+" "+Clean(e.Text+" "+e.Object)+" "+
			t.paint.dim(sizeIfKnown(e.Current)))
	case i >= 0:
		t.transfers[i].current, t.transfers[i].total = e.Current, e.Total
	default:
		t.transfers = append(t.transfers, &liveTransfer{e.Text, e.Object, e.Current, e.Total, e.Time})
	}
}

// Log shows a library's line above the region.
func (t *terminal) Log(line string) {
	t.mu.Lock()
	t.pending = append(t.pending, Clean(strings.TrimRight(line, "\n")))
	t.mu.Unlock()
	t.poke()
}

// region is the live region: at most rows lines, of which those of the steps
// keep their times when they are cut to the columns.
func (t *terminal) region(now time.Time, columns, rows int) []string {
	if len(t.running)+len(t.transfers) == 0 {
		return nil
	}
	rows = max(rows, 1)
	head := fmt.Sprintf("%s %s", t.paint.cyan("building"), seconds(now.Sub(t.start)))
	if t.total > 0 {
		head = fmt.Sprintf("%s %s  %d/%d steps", t.paint.cyan("building"), seconds(now.Sub(t.start)), t.finished, t.total)
	}
	lines := []string{head}
	shown := t.running
	if room := rows - 1; len(shown) > room {
		shown = shown[:room]
	}
	left := rows - 1 - len(shown) - min(len(t.transfers), maxTransfers)
	for i, l := range shown {
		elapsed := seconds(now.Sub(l.begin))
		text := truncate(t.paint.cyan(t.signs.running)+" "+t.describe(&l.step), columns-len(elapsed)-1)
		lines = append(lines, text+" "+t.paint.dim(elapsed))
		// The rows that are left are shared between the steps not drawn yet.
		n := min(windowLines, max(left, 0)/(len(shown)-i))
		if n == 0 {
			continue
		}
		output := t.tails.of(l.step.ID).Last(n)
		left -= len(output)
		for _, o := range output {
			lines = append(lines, t.paint.dim("  | "+o))
		}
	}
	for i, tr := range t.transfers {
		if i == maxTransfers || len(lines) >= rows {
			break
		}
		lines = append(lines, t.transferLine(tr, now))
	}
	return lines[:min(len(lines), rows)]
}

func (t *terminal) transferLine(l *liveTransfer, now time.Time) string {
	const width = 20
	bar := ""
	if l.total > 0 {
		n := int(min(l.current, l.total) * width / l.total)
		bar = t.paint.cyan(strings.Repeat(t.signs.bar, n)) + t.paint.dim(strings.Repeat(t.signs.empty, width-n)) + " "
	}
	rate := ""
	if d := now.Sub(l.begin).Seconds(); d > 0.5 {
		rate = " " + size(int64(float64(l.current)/d)) + "/s"
	}
	return "  " + Clean(l.action+" "+l.object) + " " + bar + t.paint.dim(progress(l.current, l.total)+rate)
}

// draw writes one frame: over the old region the lines that became final,
// then the new region.
func (t *terminal) draw(live bool) {
	t.drawMu.Lock()
	defer t.drawMu.Unlock()
	select {
	case <-t.closed:
		if live {
			return // Close has drawn the last frame
		}
	default:
	}
	columns, rows := t.size()
	if columns < 4 {
		columns = 80
	}
	if rows < 3 {
		rows = 24
	}
	t.mu.Lock()
	final := t.pending
	t.pending = nil
	var lines []string
	if live {
		lines = t.region(time.Now(), columns-1, rows-1)
	}
	t.mu.Unlock()
	if len(final) == 0 && len(lines) == 0 && len(t.widths) == 0 {
		return
	}
	_, _ = io.WriteString(t.out, t.frame(final, lines, columns, rows))
}

func (t *terminal) frame(final, lines []string, columns, rows int) string {
	var b strings.Builder
	// Synchronized output (mode 2026) where the terminal knows it, no cursor,
	// no automatic wrap.
	b.WriteString("\x1b[?2026h\x1b[?25l\x1b[?7l")
	// A window that became narrower has wrapped the old region's lines.
	up := 0
	for _, w := range t.widths {
		up += max(1, (w+columns-1)/columns)
	}
	if up = min(up, rows-1); up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	b.WriteString("\r")
	if len(final) > 0 {
		// Final lines may be long: with wrapping on they lose nothing.
		b.WriteString("\x1b[J\x1b[?7h" + strings.Join(final, "\r\n") + "\r\n\x1b[?7l")
	}
	t.widths = t.widths[:0]
	for _, l := range lines {
		l = truncate(l, columns-1)
		t.widths = append(t.widths, width(l))
		b.WriteString(l + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J\x1b[?7h\x1b[?25h\x1b[?2026l")
	return b.String()
}

// Close removes the region and leaves the final lines.
func (t *terminal) Close() {
	t.once.Do(func() {
		close(t.closed)
		t.draw(false)
	})
}

func (t *terminal) Fail(f Failure) {
	t.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	report(t.out, t.paint, f, t.tails.failed(f))
}
