package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation"
)

// grace is how long a cancelled step may take to end.
const grace = 10 * time.Second

// Run implements isolation.Driver.
func (d *driver) Run(ctx context.Context, s *isolation.Step) (err error) {
	if err := s.Check(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	plan, err := d.plan(s)
	if err != nil {
		return err
	}
	defer func() {
		if e := plan.close(); err == nil {
			err = e
		}
	}()
	p, err := d.take(plan)
	if err != nil {
		return err
	}
	defer p.close()
	stop := watch(ctx, p)
	defer stop()

	var console sync.WaitGroup
	o := p.follow(func(master *os.File) {
		console.Go(func() { s.Spec.Terminal.Console(master) })
	}, func(fd *os.File) { plan.owners.listen(p.pid, fd) })
	if o.started && o.err == nil && plan.foreign == nil {
		d.startAhead(plan.flags)
	}
	status, err := p.wait()
	stop()
	plan.owners.close(o.started)
	console.Wait()
	switch {
	case ctx.Err() != nil:
		return cancelled(ctx)
	case o.err != nil:
		return o.err
	case err != nil:
		return fmt.Errorf("wait for the step: %w", err)
	}
	if reason := plan.group.OutOfMemory(); reason != "" && (status.Signaled() || status.ExitStatus() != 0) {
		e := exitError(status)
		e.Reason = reason
		return e
	}
	if !o.started {
		return fmt.Errorf("set up the step: its first process died early (%v)", exitError(status))
	}
	return d.exit(status)
}

func cancelled(ctx context.Context) error {
	return fmt.Errorf("step cancelled: %w", context.Cause(ctx))
}

// exitError translates a wait status.
func exitError(status syscall.WaitStatus) *isolation.ExitError {
	e := &isolation.ExitError{Code: status.ExitStatus()}
	if status.Signaled() {
		e.Signal = int(status.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}

// exit is what Run returns for a step that has ended.
func (d *driver) exit(status syscall.WaitStatus) error {
	e := exitError(status)
	if e.Code == 0 {
		return nil
	}
	// A shell says 137 when its child was killed.
	if e.Code == 128+int(syscall.SIGKILL) && d.oom.rose() {
		e.Reason = "killed; the kernel ran out of memory meanwhile"
	}
	return e
}

// take returns an init that has its configuration.
func (d *driver) take(plan *plan) (*process, error) {
	flags := plan.flags
	d.oom.begin()
	d.mu.Lock()
	if done := d.preparing; done != nil {
		d.mu.Unlock()
		<-done
		d.mu.Lock()
	}
	p := d.ready
	if d.closed {
		d.mu.Unlock()
		return nil, errors.New("embedded isolation: the driver is closed")
	}
	if p != nil && p.flags == flags {
		d.ready = nil
	} else {
		p = nil
	}
	d.mu.Unlock()
	if p != nil {
		if plan.group.Add(p.pid) == nil && p.send(plan.config, plan.fds) == nil {
			return p, nil
		}
		// It died while it waited; that is no reason to fail.
		p.end()
	}
	p, err := d.start(flags, plan.foreign)
	if err != nil {
		return nil, err
	}
	// It waits for what it is sent next.
	if err := plan.group.Add(p.pid); err != nil {
		p.end()
		return nil, err
	}
	if err := p.send(plan.config, plan.fds); err != nil {
		// What it says of itself is the better reason.
		if o := p.follow(nil, nil); o.err != nil {
			err = o.err
		}
		p.end()
		return nil, err
	}
	return p, nil
}

func (d *driver) start(flags uintptr, f *foreign) (*process, error) {
	if f != nil {
		p, err := d.starter.startForeign(flags, f)
		if err == nil {
			f.raise(p.pid)
		}
		return p, err
	}
	p, err := d.starter.start(flags)
	if err != nil {
		return nil, explain(err)
	}
	return p, nil
}

// Prepare starts the init of the first step to come, so that it is ready when
// the step's root is. It returns at once; what goes wrong, Run will say.
func (d *driver) Prepare() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.ready != nil || d.preparing != nil {
		return
	}
	flags := uintptr(namespaceFlags)
	if d.o.SharedPID {
		flags &^= unix.CLONE_NEWPID
	}
	done := make(chan struct{})
	d.preparing = done
	d.ahead.Go(func() {
		defer close(done)
		d.keepReady(flags)
	})
}

// keepReady starts an init and keeps it for the next step.
func (d *driver) keepReady(flags uintptr) {
	p, err := d.starter.start(flags)
	if err != nil {
		return // the next Run will say why
	}
	d.mu.Lock()
	if d.closed || d.ready != nil {
		d.mu.Unlock()
		p.end()
		return
	}
	d.ready = p
	d.mu.Unlock()
}

// startAhead starts the next step's init, now that this one's program runs.
func (d *driver) startAhead(flags uintptr) {
	if !d.o.Ahead {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.ready != nil && d.ready.flags == flags {
		return
	}
	old := d.ready
	d.ready = nil
	d.ahead.Go(func() {
		if old != nil {
			old.end()
		}
		d.keepReady(flags)
	})
}

// watch ends the step when ctx ends. The function it returns stops it; it may
// be called more than once.
func watch(ctx context.Context, p *process) (stop func()) {
	done := make(chan struct{})
	detach := context.AfterFunc(ctx, func() {
		// Before its program runs, it has nothing to tidy up. A program that
		// does not listen to SIGTERM ends by it, as anywhere else.
		if errors.Is(context.Cause(ctx), isolation.ErrKillNow) || !p.startedSoon() || !p.handlesTerm() {
			p.kill()
			return
		}
		p.term()
		select {
		case <-done:
		case <-time.After(grace):
			p.kill()
		}
	})
	return sync.OnceFunc(func() { detach(); close(done) })
}

// oomCounter notices that the kernel killed something for want of memory.
// The counter is the whole host's: where two steps run at once, both may be
// told.
type oomCounter struct {
	mu    sync.Mutex
	known bool
	last  string
}

// begin takes the counter once.
func (c *oomCounter) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		c.known, c.last = true, cgroup.HostOOMKills()
	}
}

// rose reports whether the counter has changed since it was looked at.
func (c *oomCounter) rose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := cgroup.HostOOMKills()
	rose := now != c.last
	c.last = now
	return rose
}
