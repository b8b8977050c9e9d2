package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Interrupted is the cause of a context that a signal ended.
type Interrupted struct{ Signal syscall.Signal }

func (i *Interrupted) Error() string { return "interrupted by " + unix.SignalName(i.Signal) }

// exitGrace is how long an interrupted command may take to clean up: a step
// has ten seconds to end after SIGTERM.
const exitGrace = 30 * time.Second

// WithSignals returns a context that ends, with an *Interrupted as its cause,
// when the process gets SIGINT, SIGTERM, SIGHUP or SIGQUIT. A second signal
// ends the process at once, and so does a clean-up that takes too long (a
// reader that has stopped reading our output, for one). SIGHUP stays ignored
// where it was (nohup).
//
// SIGPIPE does not kill: writing to a closed pipe is an error like others, so
// that a build whose progress nobody reads still ends well.
func WithSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	got := make(chan os.Signal, 4)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		// A background job of a script ignores SIGINT without meaning it.
		if s != syscall.SIGHUP || !signal.Ignored(s) {
			signal.Notify(got, s)
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		var first syscall.Signal
		select {
		case s := <-got:
			first, _ = s.(syscall.Signal)
			cancel(&Interrupted{first})
		case <-done:
			return
		}
		select {
		case <-got:
		case <-time.After(exitGrace):
		case <-done:
			return
		}
		os.Exit(128 + int(first))
	}()
	return ctx, func() {
		signal.Stop(got)
		close(done)
		cancel(nil)
	}
}
