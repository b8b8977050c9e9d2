package cli

import (
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/stratabuild/strata/define"
)

// rusageLog is told of events before another listener and writes, for each
// step that was executed, the resources that were used meanwhile (--log-rusage).
// The kernel counts them for all processes of the build: those of steps that
// run beside each other are in both lines.
type rusageLog struct {
	next  define.Listener
	write func(line string)

	mu    sync.Mutex
	start map[int]usage
}

// usage is what getrusage(2) says of this process and of those it waited for.
type usage struct{ user, system time.Duration }

func usageNow() usage {
	var u usage
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if syscall.Getrusage(who, &r) == nil {
			u.user += time.Duration(r.Utime.Nano())
			u.system += time.Duration(r.Stime.Nano())
		}
	}
	return u
}

func newRusageLog(next define.Listener, write func(string)) *rusageLog {
	return &rusageLog{next: next, write: write, start: map[int]usage{}}
}

// rusageTo writes lines to a file.
func rusageTo(w io.Writer) func(string) {
	return func(line string) { _, _ = fmt.Fprintln(w, line) }
}

// Event implements define.Listener.
func (l *rusageLog) Event(e define.Event) {
	if e.Kind == define.EventStepStart && e.Step != nil {
		l.mu.Lock()
		l.start[e.Step.ID] = usageNow()
		l.mu.Unlock()
	}
	l.next.Event(e)
	if e.Kind != define.EventStepDone || e.Step == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	began, ok := l.start[e.Step.ID]
	if !ok {
		return
	}
	delete(l.start, e.Step.ID)
	now := usageNow()
	l.write(fmt.Sprintf("%s: %s(system) %s(user) %s(elapsed)", e.Step.Text, round(now.system-began.system), round(now.user-began.user), round(e.Elapsed)))
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
