package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// The exit statuses that do not come from a step. A step that fails with
// status N makes strata exit with N, which may be one of these too: the JSON
// progress and the text of the error tell them apart.
const (
	exitOK = 0
	// exitError is for every failure of strata itself: usage, registries,
	// stores, files.
	exitError = 125
	// exitSignal plus a signal's number is for an interrupted command: 130
	// for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
	exitSignal = 128
	// exitPipe is for a result whose reader has gone, as the shell reports
	// programs that SIGPIPE ends.
	exitPipe = exitSignal + int(syscall.SIGPIPE)
)

// errResult wraps a failure to write a result to standard output.
type errResult struct{ err error }

func (e *errResult) Error() string { return "standard output: " + e.err.Error() }
func (e *errResult) Unwrap() error { return e.err }

// errStatus is the exit status of a program that strata was to start, and that
// has said itself what there is to say.
type errStatus struct{ code int }

func (e *errStatus) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// exitCode is the status that a command ends with. It is the only place that
// maps errors to statuses.
func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if i, ok := interrupted(ctx, err); ok {
		return exitSignal + int(i.Signal)
	}
	var status *errStatus
	if errors.As(err, &status) {
		return status.code
	}
	var result *errResult
	if errors.As(err, &result) && errors.Is(err, syscall.EPIPE) {
		return exitPipe
	}
	var checked *errCheck
	if errors.As(err, &checked) {
		return exitCheck
	}
	if errors.As(err, new(*errAbsent)) {
		return exitAbsent
	}
	var unusable *errUnusable
	if errors.As(err, &unusable) {
		return exitUnusable
	}
	var step *isolation.ExitError
	if errors.As(err, &step) && step.Code > 0 && step.Code < 256 {
		return step.Code
	}
	return exitError
}

func interrupted(ctx context.Context, err error) (*Interrupted, bool) {
	var i *Interrupted
	if errors.As(err, &i) || errors.As(context.Cause(ctx), &i) {
		return i, true
	}
	return nil, false
}

// failure is what is reported of err; show is false when there is nothing to
// say (a reader that has gone).
func failure(ctx context.Context, err error) (f ui.Failure, show bool) {
	f.Code = exitCode(ctx, err)
	f.Text = oneLine(err.Error())
	if errors.Is(err, syscall.ENOSPC) && !errors.As(err, new(*errResult)) && !strings.ContainsAny(f.Text, "(;") {
		// Some that name the file say nothing of what is to be done.
		f.Text += " (neither blocks nor inodes may run out: df, df -i)"
	}
	var in *imagebuildah.InstructionError
	if errors.As(err, &in) {
		f.File, f.Line, f.Instruction = in.File, in.Line, in.Instruction
	}
	if i, ok := interrupted(ctx, err); ok {
		f.Text = i.Error()
		if f.File != "" {
			f.Text += fmt.Sprintf(" at %s:%d: %s", f.File, f.Line, f.Instruction)
		}
		// The step failed because it was stopped: its output says nothing.
		f.File = ""
	}
	var checked *errCheck
	if errors.As(err, &checked) && checked.err == nil {
		return f, false
	}
	if status := (*errStatus)(nil); errors.As(err, &status) && err.Error() == status.Error() {
		return f, false
	}
	return f, f.Code != exitPipe && !errors.As(err, new(*errAbsent))
}

// oneLine joins the lines of an error, as errors.Join makes them.
func oneLine(s string) string {
	var parts []string
	for l := range strings.SplitSeq(s, "\n") {
		l = strings.TrimSpace(l)
		// The kinds are for programs: the sentence before them says it.
		for _, kind := range []error{define.ErrInvalid, define.ErrUnsupported, define.ErrInUse, define.ErrNotFound} {
			l = strings.TrimSuffix(l, ": "+kind.Error())
		}
		if l != "" {
			parts = append(parts, l)
		}
	}
	return strings.Join(parts, "; ")
}

// printError reports err where there is no display.
func printError(ctx context.Context, w io.Writer, colour bool, err error) {
	if f, show := failure(ctx, err); show {
		ui.New(ui.ModeQuiet, ui.Options{Out: w, Colour: colour}).Fail(f)
	}
}
