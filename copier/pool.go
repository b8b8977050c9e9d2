package copier

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/stratabuild/strata/copier/internal/at"
)

// sharedFD is a descriptor that several jobs use; the last one closes it.
type sharedFD struct {
	fd   int
	refs atomic.Int32
}

func newSharedFD(fd int) *sharedFD {
	s := &sharedFD{fd: fd}
	s.refs.Store(1)
	return s
}

func (s *sharedFD) retain() *sharedFD {
	s.refs.Add(1)
	return s
}

func (s *sharedFD) release() {
	if s.refs.Add(-1) == 0 {
		at.Close(s.fd)
	}
}

// releaser is a job that holds descriptors.
type releaser interface{ release() }

// pool runs jobs on a few workers. The first error cancels the rest; every job
// is released, also one that did not run.
type pool[J releaser] struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	jobs   chan J
	// pending counts jobs that are not done; workers counts goroutines.
	pending, workers sync.WaitGroup
}

func newPool[J releaser](ctx context.Context) *pool[J] {
	p := &pool[J]{jobs: make(chan J, 2*workers)}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// start starts the workers; newWorker makes the function of each.
func (p *pool[J]) start(newWorker func() func(J) error) {
	for range workers {
		p.workers.Go(func() {
			var run func(J) error
			for j := range p.jobs {
				if p.ctx.Err() == nil {
					if run == nil {
						run = newWorker()
					}
					if err := run(j); err != nil {
						p.cancel(err)
					}
				}
				j.release()
				p.pending.Done()
			}
		})
	}
}

// send hands a job over, which the pool releases in any case.
func (p *pool[J]) send(j J) error {
	if p.ctx.Err() != nil {
		j.release()
		return context.Cause(p.ctx)
	}
	p.pending.Add(1)
	p.jobs <- j
	return nil
}

// wait returns when all jobs sent so far are done, with the first error.
func (p *pool[J]) wait() error {
	p.pending.Wait()
	return context.Cause(p.ctx)
}

// finish ends the workers. err is what stopped the caller from sending more;
// the first error of all is returned.
func (p *pool[J]) finish(err error) error {
	if err != nil {
		p.cancel(err)
	}
	close(p.jobs)
	p.workers.Wait()
	err = context.Cause(p.ctx)
	p.cancel(nil)
	return err
}
