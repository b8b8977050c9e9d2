package copier

import (
	"cmp"
	"context"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// scanner goes through directory trees with several goroutines: it lists what
// was not listed yet, and digests what it passes when there is a digester.
// A tree is looked at once for both, while its directory is open.
type scanner struct {
	ctx    context.Context
	sel    *selector // decides what is in; nil when all is listed
	src    *sourceReader
	digest *digester // nil: names only

	mu      sync.Mutex
	more    sync.Cond // jobs came, or all is done
	jobs    []scanJob // the last one first, so that few directories are open
	later   []scanJob // too deep: taken when all else is done and closed
	busy    int       // jobs that are being worked on
	helpers int
	workers sync.WaitGroup
	err     error
	pass    bool // there are directories that may have to go again
}

// scanJob is a directory, or a part of one.
type scanJob struct {
	// dir is the directory itself for a part (to > 0), else the one that holds
	// it; nil when it is to be opened by its path.
	dir    *sharedFD
	real   string // path of d below the root
	name   string // of a single object where d's is not its real one
	source int
	depth  int
	from   int
	to     int
	d      *dir // what is filled in or digested
	// up and at are the directory's own place; up is nil for a source.
	up     *dir
	at     int
	filter treeFilter
}

// scanWorkers is how many goroutines look at files at once. It is the kernel
// that works, nearly without locks.
func scanWorkers() int { return min(max(workers, runtime.GOMAXPROCS(0)), 8) }

// scanPart is how many objects of a directory are looked at in one go.
const scanPart = 256

func newScanner(ctx context.Context, src *sourceReader) *scanner {
	s := &scanner{ctx: ctx, src: src}
	s.more.L = &s.mu
	return s
}

// run works through the job and all that follow from it. The caller's
// goroutine is the first worker; others start when there is work for them.
func (s *scanner) run(j scanJob) error {
	s.mu.Lock()
	s.err = s.ctx.Err()
	s.jobs, s.helpers = append(s.jobs[:0], j), 0
	s.mu.Unlock()
	s.work()
	s.workers.Wait()
	for _, j := range s.jobs { // after an error
		j.release()
	}
	s.jobs, s.later = nil, nil
	return s.err
}

func (j scanJob) release() {
	if j.dir != nil {
		j.dir.release()
	}
}

// push hands out another job.
func (s *scanner) push(j scanJob) {
	s.mu.Lock()
	if j.dir == nil {
		s.later = append(s.later, j)
		s.mu.Unlock()
		return
	}
	s.jobs = append(s.jobs, j)
	start := s.helpers+1 < scanWorkers()
	if start {
		s.helpers++
	}
	s.mu.Unlock()
	if start {
		s.workers.Go(s.work)
		return
	}
	s.more.Signal()
}

// work takes jobs until all are done or one has failed.
func (s *scanner) work() {
	w := &scanWorker{s: s}
	if s.digest != nil {
		w.digest = digestWorker{ctx: s.ctx, d: s.digest, src: s.src}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.jobs) == 0 && s.busy > 0 && s.err == nil {
			s.more.Wait()
		}
		from := &s.jobs
		if len(s.jobs) == 0 {
			from = &s.later
		}
		last := len(*from) - 1
		if last < 0 || s.err != nil {
			s.more.Broadcast()
			return
		}
		j := (*from)[last]
		(*from)[last] = scanJob{}
		*from = (*from)[:last]
		s.busy++
		s.mu.Unlock()
		err := s.ctx.Err()
		if err == nil {
			err = w.job(j)
		}
		j.release()
		s.mu.Lock()
		s.busy--
		if err != nil && s.err == nil {
			s.err = cmp.Or(context.Cause(s.ctx), err)
		}
	}
}

// scanWorker is one goroutine's tools.
type scanWorker struct {
	s      *scanner
	digest digestWorker
	list   []at.Dirent
	names  []byte
}

func (w *scanWorker) job(j scanJob) error {
	if j.to > 0 {
		return w.part(j.dir, &j, j.from, j.to)
	}
	fd, err := w.open(j)
	if err != nil {
		return err
	}
	dir := newSharedFD(fd)
	defer dir.release()
	if w.s.digest != nil && j.up != nil {
		if err := w.digest.directory(fd, j); err != nil {
			return err
		}
	}
	var filters []treeFilter
	if !j.d.listed {
		if filters, err = w.read(fd, j); err != nil {
			return err
		}
	}
	if w.s.digest != nil {
		j.d.makeSums() // directories below fill in theirs
	}
	w.children(dir, j, filters)
	if w.s.digest == nil || len(j.d.nodes) == 0 {
		return nil
	}
	for from := scanPart; from < len(j.d.nodes); from += scanPart {
		part := j
		part.dir, part.from, part.to = dir.retain(), from, min(from+scanPart, len(j.d.nodes))
		w.s.push(part)
	}
	return w.part(dir, &j, 0, min(scanPart, len(j.d.nodes)))
}

// open opens the directory of the job.
func (w *scanWorker) open(j scanJob) (int, error) {
	if j.dir == nil {
		return w.s.src.open(j.real)
	}
	return openSourceDir(j.dir.fd, path.Base(j.real), j.real)
}

// children hands out the directories in one; filters are those of subs.
func (w *scanWorker) children(dir *sharedFD, j scanJob, filters []treeFilter) {
	// In reverse, so that the first one is next.
	for i := len(j.d.nodes) - 1; i >= 0; i-- {
		sub := j.d.sub(i)
		if sub == nil {
			continue
		}
		k := scanJob{real: join(j.real, j.d.name(i)), source: j.source, d: sub, up: j.d, at: i, depth: j.depth + 1}
		if filters != nil {
			k.filter = filters[j.d.nodes[i].seen-1]
		}
		if k.depth < maxDepth {
			k.dir = dir.retain()
		} else {
			k.depth = 0 // it is opened by its path
		}
		w.s.push(k)
	}
}

// read lists the directory fd into j.d, and returns what its directories are
// to be filtered by; nil when all is taken.
func (w *scanWorker) read(fd int, j scanJob) (filters []treeFilter, err error) {
	if w.list, w.names, err = at.ReadDirents(fd, w.list[:0], w.names[:0]); err != nil {
		return nil, fail("read directory", j.real, err)
	}
	d, pass := j.d, false
	d.names = string(w.names)
	slices.SortFunc(w.list, func(a, b at.Dirent) int { return strings.Compare(a.Name(d.names), b.Name(d.names)) })
	kept, subs := w.list[:0], 0
	for _, e := range w.list {
		keep, sub, err := w.s.sel.entry(fd, j, &e, e.Name(d.names))
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		if e.Type == unix.S_IFDIR {
			if subs++; sub != nil {
				filters = append(filters, *sub)
			}
		}
		pass = pass || e.Pass
		kept = append(kept, e)
	}
	d.nodes, d.subs = make([]node, len(kept)), make([]*dir, 0, subs)
	for i, e := range kept {
		n := &d.nodes[i]
		n.off, n.len, n.typ = e.Off, e.Len, uint8(e.Type>>12)
		if e.Type == unix.S_IFDIR {
			d.subs = append(d.subs, &dir{})
			n.seen = uint64(len(d.subs))
		}
		if e.Pass {
			n.flags |= flagPass
		}
	}
	d.listed = true
	if pass {
		w.s.mu.Lock()
		w.s.pass = true
		w.s.mu.Unlock()
	}
	return filters, nil
}

// part digests some objects of an open directory; directories digest
// themselves when they are opened.
func (w *scanWorker) part(dir *sharedFD, j *scanJob, from, to int) error {
	if w.s.digest == nil {
		return nil
	}
	for i := from; i < to; i++ {
		if j.d.nodes[i].isDir() {
			continue
		}
		if err := w.digest.item(dir.fd, j, i); err != nil {
			return err
		}
		if i&63 == 63 && w.s.ctx.Err() != nil {
			return context.Cause(w.s.ctx)
		}
	}
	return nil
}
