package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
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

// signals is what WithSignals does, as the context carries it.
type signals struct {
	stop   func()
	atExit atomic.Pointer[func()]
}

type signalsKey struct{}

// ownSignals ends what WithSignals does: the command takes signals itself, and
// has asked for them before.
func ownSignals(ctx context.Context) {
	if s, ok := ctx.Value(signalsKey{}).(*signals); ok {
		s.stop()
	}
}

// beforeForcedExit has f called when a signal ends the process at once.
func beforeForcedExit(ctx context.Context, f func()) {
	if s, ok := ctx.Value(signalsKey{}).(*signals); ok {
		s.atExit.Store(&f)
	}
}

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
	own := &signals{stop: sync.OnceFunc(func() {
		signal.Stop(got)
		close(done)
	})}
	ctx = context.WithValue(ctx, signalsKey{}, own)
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
		if f := own.atExit.Load(); f != nil {
			(*f)()
		}
		os.Exit(128 + int(first))
	}()
	return ctx, func() {
		own.stop()
		cancel(nil)
	}
}
