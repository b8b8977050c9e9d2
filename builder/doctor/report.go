package doctor

import (
	"fmt"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
)

// Version is the report's form. Keys and ids are added without a new one.
const Version = 1

// State is what a finding means to builds.
type State string

const (
	// OK is as good as it gets.
	OK State = "ok"
	// Lesser works, but slower, weaker or with less than there could be.
	Lesser State = "lesser"
	// Missing is not there. Whether it matters, the remedy says.
	Missing State = "missing"
	// Neutral is a fact without a better or worse.
	Neutral State = "info"
)

// Finding is one line of a report.
type Finding struct {
	// ID is the finding's name for programs: "namespaces.user".
	ID string `json:"id"`
	// Group and Name are what people see.
	Group string `json:"group"`
	Name  string `json:"name"`
	State State  `json:"state"`
	// Text is what was found.
	Text string `json:"text"`
	// Remedy is the command that would make it better, or what does; "" is
	// nothing.
	Remedy string `json:"remedy,omitempty"`
	// Data are the numbers and lists behind Text, for programs.
	Data map[string]any `json:"data,omitempty"`
}

// Report is what Examine finds.
type Report struct {
	Version int `json:"version"`
	// Usable: images can be built here.
	Usable bool `json:"usable"`
	// Reason is why not.
	Reason string `json:"reason,omitempty"`
	// Uses is what strata will use, Host what there is.
	Uses []Finding `json:"uses"`
	Host []Finding `json:"host"`
}

// Options says whose builds are meant.
type Options struct {
	// Namespaces is what userns.Enter gave to this process, as it would to a
	// build. Refused is its error where it gave nothing.
	Namespaces userns.Info
	Refused    error
	// Store is which store builds would open.
	Store store.Options
}

// examiner collects findings.
type examiner struct {
	world
	o      Options
	report *Report
	group  string

	choice    store.Choice
	choiceErr error
	overlay   string // why overlay cannot be mounted; "" when it can
	scratch   string // why nothing could be tried on the store's file system
	isolation string // of steps; "" when there is none
}

func (x *examiner) add(id, name string, s State, text, remedy string) *Finding {
	x.report.Host = append(x.report.Host, Finding{ID: id, Group: x.group, Name: name, State: s, Text: text, Remedy: remedy})
	return &x.report.Host[len(x.report.Host)-1]
}

func (x *examiner) fact(id, name, format string, args ...any) *Finding {
	return x.add(id, name, Neutral, fmt.Sprintf(format, args...), "")
}

func (x *examiner) use(id, name string, s State, text, remedy string) {
	x.report.Uses = append(x.report.Uses, Finding{ID: "use." + id, Group: "strata uses", Name: name, State: s, Text: text, Remedy: remedy})
}

func (f *Finding) with(key string, value any) *Finding {
	if f.Data == nil {
		f.Data = map[string]any{}
	}
	f.Data[key] = value
	return f
}
