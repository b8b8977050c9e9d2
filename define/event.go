package define

import "time"

// EventKind tells what happened; the comment beside each says which fields
// of Event are set. JSON progress prints kinds as they are: they only grow.
type EventKind string

const (
	// EventPlan: the graph is known. Total steps in Of.
	EventPlan EventKind = "plan"
	// EventStepStart: Step begins to execute (not sent for cached steps).
	EventStepStart EventKind = "step-start"
	// EventStepOutput: the step wrote Data to Stream (1 stdout, 2 stderr).
	EventStepOutput EventKind = "step-output"
	// EventStepCached: Step was found in the cache; Layer is set when it has one.
	EventStepCached EventKind = "step-cached"
	// EventStepDone: Step ended after Elapsed; Err when it failed.
	EventStepDone EventKind = "step-done"
	// EventExplain: Text says why Step was cached or executed (--explain).
	EventExplain EventKind = "explain"
	// EventTransfer: Object (a short digest or name) moved to Current of
	// Total bytes (Total 0: unknown); Text names the action ("pull", "push",
	// "export"). Done is set on the last event of an object.
	EventTransfer EventKind = "transfer"
	// EventNote: Text tells the user something, once.
	EventNote EventKind = "note"
	// EventWarning: Text, with File and Line where it has a place.
	EventWarning EventKind = "warning"
	// EventImage: Image was recorded under Names.
	EventImage EventKind = "image"
)

// Step identifies one instruction of a build in events and errors.
type Step struct {
	// ID is unique in a build and stable for its duration; 1 is the first.
	ID int `json:"id"`
	// Stage is the stage's name, or its index in decimal.
	Stage string `json:"stage,omitempty"`
	// N of Of: the position in its stage, 1 for FROM.
	N  int `json:"n,omitempty"`
	Of int `json:"of,omitempty"`
	// Platform is set when the build has several: "linux/arm64", or
	// "linux/amd64->linux/arm64" for a step that runs on the first for the
	// sake of the second only.
	Platform string `json:"platform,omitempty"`
	// Text is the instruction as written, on one line.
	Text string `json:"text,omitempty"`
	// File and Line are where it stands.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Event is one thing that happened in a build, a pull or a push. Libraries
// report events and never print; cmd/internal/ui draws them.
type Event struct {
	Kind    EventKind     `json:"kind"`
	Time    time.Time     `json:"time"`
	Step    *Step         `json:"step,omitempty"`
	Of      int           `json:"of,omitempty"`
	Stream  int           `json:"stream,omitempty"`
	Data    []byte        `json:"-"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	Err     error         `json:"-"`
	Text    string        `json:"text,omitempty"`
	File    string        `json:"file,omitempty"`
	Line    int           `json:"line,omitempty"`
	Layer   LayerID       `json:"layer,omitempty"`
	Image   ImageID       `json:"image,omitempty"`
	Names   []string      `json:"names,omitempty"`
	Object  string        `json:"object,omitempty"`
	Current int64         `json:"current,omitempty"`
	Total   int64         `json:"total,omitempty"`
	Done    bool          `json:"done,omitempty"`
}

// Listener receives events. Event may be called from several goroutines at
// once, must not block for long and must not keep Data after it returns.
type Listener interface {
	Event(Event)
}

// ListenerFunc makes a function a Listener.
type ListenerFunc func(Event)

// Event calls f.
func (f ListenerFunc) Event(e Event) { f(e) }

// Emit sends e, stamped with the time when it has none, to l; a nil l is
// silence.
func Emit(l Listener, e Event) {
	if l == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.Event(e)
}
