package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// Report is the document of frontend.lint.
type Report struct {
	Warnings []Warning `json:"warnings"`
	Sources  []Source  `json:"sources"`
	// Error is the mistake that a build would end with.
	Error *BuildError `json:"buildError,omitempty"`
}

// Warning is one violation of a rule.
type Warning struct {
	Rule        string    `json:"ruleName"`
	Description string    `json:"description,omitempty"`
	URL         string    `json:"url,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	Location    *Location `json:"location,omitempty"`
}

// BuildError is a mistake in a build file.
type BuildError struct {
	Message  string    `json:"message"`
	Location *Location `json:"location"`

	err error
}

// Err is nil when nothing was found that stops a build, else the mistake, in
// one line with its place; it is define.ErrInvalid or define.ErrNotFound.
func (r *Report) Err() error {
	if r.Error == nil {
		return nil
	}
	return r.Error.err
}

// Failed reports whether there is anything to mend: docker buildx ends with
// status 1 then.
func (r *Report) Failed() bool { return r.Error != nil || len(r.Warnings) > 0 }

// Lint applies BuildKit's rules to the stages that the target needs, or to all
// without one. Mistakes in the build files are in the Report; the error is
// about the context.
func Lint(ctx context.Context, o Options) (r *Report, err error) {
	in, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = in.close(err) }()
	r = &Report{Warnings: []Warning{}, Sources: in.files()}
	l := &lint{input: in, known: map[string]bool{}}
	if err := l.run(ctx); ctx.Err() != nil {
		return nil, context.Cause(ctx)
	} else if err != nil {
		r.Error = in.buildError(err)
	}
	for _, w := range l.found {
		if w.Rule == "" || w.Stage >= 0 && !l.needed(w.Stage) {
			continue
		}
		r.Warnings = append(r.Warnings, Warning{Rule: w.Rule, Description: w.Description, URL: w.URL, Detail: w.Text,
			Location: in.location(w.File, w.Line, w.EndLine)})
	}
	slices.SortStableFunc(r.Warnings, func(a, b Warning) int {
		if d := a.Location.SourceIndex - b.Location.SourceIndex; d != 0 {
			return d
		}
		return a.Location.line() - b.Location.line()
	})
	return r, nil
}

func (l *Location) line() int {
	if len(l.Ranges) == 0 {
		return 0
	}
	return l.Ranges[0].Start.Line
}

func (in *input) buildError(err error) *BuildError {
	e := &BuildError{Message: err.Error(), Location: &Location{}, err: err}
	var at *containerfile.Error
	if errors.As(err, &at) {
		e.Location = in.location(at.File, at.Line, at.Line)
	}
	return e
}

// lint is one run of Lint.
type lint struct {
	*input
	file  *containerfile.File
	graph *containerfile.Graph // nil: all stages
	found []containerfile.Warning
	// known are the names that an ARG or ENV anywhere in the file gives.
	known map[string]bool
	names []string // sorted
	// open says of each stage that a base image may define variables.
	open   []bool
	scopes []*expand.Stage
	// inherited bounds what the scopes hold.
	inherited containerfile.Inherited
	// seen, when not nil, is told of each instruction of a stage once it is
	// expanded; args are what an ARG declared, with their values.
	seen func(stage int, ins containerfile.Instruction, cmd instructions.Command, args []instructions.KeyValuePairOptional)
}

func (l *lint) needed(stage int) bool {
	return l.graph == nil || slices.Contains(l.graph.Needed, stage)
}

func (l *lint) run(ctx context.Context) error {
	f, err := l.parse()
	if err != nil {
		return err
	}
	l.file, l.found = f, f.Warnings
	global, err := l.global(f)
	if err != nil {
		return err
	}
	if l.options.Target != "" {
		if l.graph, err = f.Graph(l.options.Target, global.Expand); err != nil {
			return err
		}
	} else if _, err := f.Graph("", global.Expand); err != nil {
		return err
	}
	l.learn()
	l.open, l.scopes = make([]bool, len(f.Stages)), make([]*expand.Stage, len(f.Stages))
	for i := range f.Stages {
		if err := l.stage(ctx, i, global); err != nil {
			return err
		}
	}
	return nil
}

// learn notes the names that the file defines.
func (l *lint) learn() {
	note := func(list []containerfile.Instruction) {
		for _, ins := range list {
			switch c := ins.Command.(type) {
			case *instructions.ArgCommand:
				for _, a := range c.Args {
					l.known[a.Key] = true
				}
			case *instructions.EnvCommand:
				for _, kv := range c.Env {
					l.known[kv.Key] = true
				}
			}
		}
	}
	note(l.file.Args)
	for i := range l.file.Stages {
		note(l.file.Stages[i].Instructions)
	}
	l.names = slices.Sorted(maps.Keys(l.known))
}

// defaultPath stands for the PATH that every stage has; its value matters to
// no rule.
var defaultPath = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

func (l *lint) stage(ctx context.Context, i int, global *expand.Global) error {
	s := &l.file.Stages[i]
	base, err := global.Expand(s.Base)
	if err != nil {
		return s.From.Errorf("%w", err)
	}
	switch parent, ok := l.file.StageByName(base, i); {
	case ok && base != "" && (base[0] < '0' || base[0] > '9'):
		if err := l.inherited.Add(s, parent); err != nil {
			return err
		}
		l.scopes[i], l.open[i] = l.scopes[parent].Child(), l.open[parent]
	default:
		if err := l.inherited.Add(s, -1); err != nil {
			return err
		}
		l.scopes[i], l.open[i] = global.Stage(defaultPath), base != "scratch"
	}
	for _, ins := range s.Instructions {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := l.instruction(i, ins); err != nil {
			return err
		}
	}
	return nil
}

// instruction expands one instruction as a build would. What cannot be
// expanded is a mistake only if no base image could help.
func (l *lint) instruction(i int, ins containerfile.Instruction) error {
	scope, cmd := l.scopes[i], ins.Fresh()
	err := scope.ExpandCommand(cmd)
	var args []instructions.KeyValuePairOptional
	switch c := cmd.(type) {
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			declared, e := scope.Declare(a)
			if e != nil && err == nil {
				err = e
			}
			args = append(args, declared)
		}
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			scope.SetEnv(kv.Key, kv.Value)
		}
	}
	if err != nil && !l.open[i] && l.needed(i) {
		return ins.Errorf("%w", err)
	}
	if l.seen != nil {
		l.seen(i, ins, cmd, args)
	}
	l.found = append(l.found, Undefined(l.file, ins, i, scope, func(name, near string) bool {
		return !l.open[i] || near != "" || l.known[name] || containerfile.Nearest(name, l.names) != ""
	})...)
	if err == nil {
		l.found = append(l.found, Ignored(l.file, ins, i, cmd, l.context.HidesSource)...)
	}
	return nil
}

// WriteText writes the report as docker buildx prints it. The error, if there
// is one, is left to the caller.
func (r *Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	switch n := len(r.Warnings); {
	case n > 1:
		fmt.Fprintf(&b, "Check complete, %d warnings have been found!\n", n)
	case n == 1:
		b.WriteString("Check complete, 1 warning has been found!\n")
	case r.Error == nil:
		b.WriteString("Check complete, no warnings found.\n")
	}
	lines := make([][][]byte, len(r.Sources))
	for i, s := range r.Sources {
		lines[i] = bytes.Split(s.Data, []byte("\n"))
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s", warning.Rule)
		if warning.URL != "" {
			fmt.Fprintf(&b, " - %s", warning.URL)
		}
		fmt.Fprintf(&b, "\n%s\n", warning.Detail)
		if at := warning.Location; len(at.Ranges) > 0 && at.SourceIndex < len(lines) {
			excerpt(&b, r.Sources[at.SourceIndex].Filename, lines[at.SourceIndex], at)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// neighbours is about how many lines are shown around those that are meant.
const neighbours = 4

// maxExcerpt bounds the lines, and their bytes, that are shown of one place.
const maxExcerpt, maxColumns = 50, 500

// excerpt shows the lines of a place among their neighbours.
func excerpt(b *bytes.Buffer, name string, lines [][]byte, at *Location) {
	first, last := at.Ranges[0].Start.Line, at.Ranges[len(at.Ranges)-1].End.Line
	if first < 1 || first > len(lines) {
		return
	}
	last = min(last, len(lines), first+maxExcerpt)
	want := neighbours
	if last > first {
		want /= 2
	}
	from, to := first, last
	for n := 0; n < want; n++ {
		if from > 1 {
			from, n = from-1, n+1
		}
		if to < len(lines) {
			to, n = to+1, n+1
		}
	}
	const rule = "--------------------\n"
	fmt.Fprintf(b, "%s:%d\n%s", name, first, rule)
	for n := from; n <= to; n++ {
		mark := "   "
		if n >= first && n <= last {
			mark = ">>>"
		}
		fmt.Fprintf(b, " %3d | %s %s\n", n, mark, printable(lines[n-1]))
	}
	b.WriteString(rule)
}

// printable makes a line of a file safe for terminals.
func printable(line []byte) string {
	line = bytes.TrimRight(line, "\r")
	if len(line) > maxColumns {
		line = append(bytes.Clone(line[:maxColumns]), "..."...)
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, line))
}
