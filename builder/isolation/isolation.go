package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/stratabuild/strata/copier"
)

// ErrKillNow, as the cause of a cancelled context, makes a driver kill the
// step at once in place of asking it to end first.
var ErrKillNow = errors.New("step killed at once")

// Step is one execution.
type Step struct {
	Spec *Spec
	// Root is the step's root: a detached mount, or a directory descriptor
	// (O_PATH is enough). It stays the caller's and stays usable afterwards.
	Root *os.File
	// Stdin may be nil (empty input). Stdout and Stderr are written to by
	// the step's processes themselves; nil discards. With Spec.Terminal they
	// are not used.
	Stdin, Stdout, Stderr *os.File
	// Owners has the owners that the step gives to files remembered, where the
	// user namespace maps one id; nil leaves them to the kernel, which refuses.
	// Only the embedded driver can do it, others leave it alone.
	Owners *Owners
}

// Owners is how owners are remembered; see package owners.
type Owners struct {
	// Upper is the directory that takes the changes of the root; nil where there
	// is none.
	Upper *os.File
	// Below returns what is remembered of a symbolic link or special file that
	// lies below Upper; name is a path below the root. It may be nil.
	Below func(name string) (copier.Owner, bool)
	// Trees are those of Spec.Trees whose files are the builder's own.
	Trees []*os.File
	// Remembers says that the root may hold remembered owners already.
	Remembers bool
	// Refused is called, at most once, with the reason why owners could not be
	// remembered; it may be nil.
	Refused func(error)
}

// Driver runs steps. Drivers are safe for concurrent use.
type Driver interface {
	// Name is what --isolation calls it.
	Name() string
	// Available returns nil, or why the driver cannot work here, with the
	// remedy where there is one.
	Available(ctx context.Context) error
	// Run executes the step and returns when its first process has ended and
	// nothing it started is left. A process that ends with another status
	// than zero is an *ExitError; any other error means that the step could
	// not be run. When ctx ends, the step gets SIGTERM, then SIGKILL after
	// ten seconds, or at once when ctx's cause is ErrKillNow or the step's
	// first process does not handle SIGTERM (which would be ignored in
	// process 1 of a pid namespace, where elsewhere it ends the process). The
	// error of a cancelled step wraps ctx's cause.
	Run(ctx context.Context, s *Step) error
	// Close ends what the driver keeps ready (a pre-started init).
	Close() error
}

// ExitError says how a step's process ended.
type ExitError struct {
	// Code is the exit status: the process's own, 128+n when it was ended by
	// signal n, 127 when the program was not found, 126 when it could not be
	// executed.
	Code int
	// Signal is the number that ended it, or 0.
	Signal int
	// Reason says more where something is known ("out of memory", "no such
	// file or directory").
	Reason string
	// NotExecuted: no program ran, so that nothing else that the step does can
	// have been what failed.
	NotExecuted bool
}

// ExecError is the error of a step whose program could not be executed, for
// which execve(2) gave errno; a name without a slash was looked for in PATH.
func ExecError(program string, errno syscall.Errno) *ExitError {
	e := &ExitError{Code: 126, Reason: strconv.Quote(program) + ": " + errno.Error(), NotExecuted: true}
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		e.Code = 127
		e.Reason = strconv.Quote(program) + ": not found"
		if strings.Contains(program, "/") {
			e.Reason += ", or its interpreter or loader is not"
		} else {
			e.Reason += " in PATH"
		}
	case syscall.ENOEXEC:
		e.Reason += " (built for another architecture, or a script without #!?)"
	}
	return e
}

func (e *ExitError) Error() string {
	switch {
	case e.Reason != "":
		return fmt.Sprintf("exit status %d: %s", e.Code, e.Reason)
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}
