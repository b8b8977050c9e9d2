package userns

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/userns/early"
)

// plan is one way to start a worker.
type plan struct {
	flags uintptr
	// maps writes the id maps of the process; nil where there is no user
	// namespace.
	maps      func(pid int) error
	single    bool
	explained bool // notes say why single
	notes     []string
}

const noPIDNamespace = "steps run without an outer pid namespace, because /proc cannot be mounted here: " +
	"killing this program with SIGKILL may leave processes of steps behind"

// rootPlans are for root with CAP_SYS_ADMIN. Without a pid namespace a worker
// has no purpose.
func rootPlans() []plan {
	return []plan{{flags: early.RootFlags}}
}

// userPlans are for everybody else, the best first.
func userPlans(o Options) []plan {
	uid, gid := os.Getuid(), os.Getgid()
	single := plan{single: true, maps: func(pid int) error { return writeMaps(pid, oneID(uid), oneID(gid), false) }}
	m, err := newMapper(uid, gid)
	if err != nil {
		single.explained, single.notes = true, []string{singleNote(err)}
		return withPIDs(o, single)
	}
	return withPIDs(o, plan{maps: m.run}, single)
}

// nestedPlans are for root that lost CAP_SYS_ADMIN: with CAP_SETUID it may
// map all of its own ids.
func nestedPlans(o Options) []plan {
	return withPIDs(o,
		plan{maps: func(pid int) error {
			return writeMaps(pid, identity("/proc/self/uid_map"), identity("/proc/self/gid_map"), true)
		}},
		plan{
			single:    true,
			explained: true,
			maps:      func(pid int) error { return writeMaps(pid, oneID(os.Getuid()), oneID(os.Getgid()), false) },
			notes:     []string{singleNote(errors.New("this container's root may not map more"))},
		})
}

func singleNote(cause error) string {
	return fmt.Sprintf("only one user id is available: %v; other users and owners than root are in the image only", cause)
}

// withPIDs completes the plans for user namespaces: each with a pid namespace
// first where one is wanted, then all without.
func withPIDs(o Options, plans ...plan) (out []plan) {
	if o.PIDNamespace {
		for _, p := range plans {
			p.flags = early.UserFlags
			out = append(out, p)
		}
	}
	for _, p := range plans {
		p.flags = early.StoreFlags
		if o.PIDNamespace {
			p.notes = append([]string{noPIDNamespace}, p.notes...)
		}
		out = append(out, p)
	}
	return out
}

// front starts a worker by the first plan that works, and exits as it does.
// It returns when none works.
func front(plans []plan, notes []string, ended func()) error {
	// The worker is killed when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// From here on signals wait, so that none is lost or kills the front alone.
	signals := make(chan os.Signal, 16)
	listen(signals)
	var first error
	var mapping error
	for _, p := range plans {
		if p.single && !p.explained && mapping != nil {
			p.notes = append(p.notes, singleNote(mapping))
		}
		p.notes = append(p.notes, notes...)
		w, err := startWorker(p)
		if err == nil {
			code := w.attend(signals)
			if ended != nil {
				ended()
			}
			os.Exit(code)
		}
		if first == nil {
			first = explain(err)
		}
		if m, ok := errors.AsType[*mappingError](err); ok {
			mapping = m.err
		}
	}
	signal.Stop(signals)
	return first
}

// mappingError: the id maps could not be written; another map may do.
type mappingError struct{ err error }

func (e *mappingError) Error() string { return e.err.Error() }
func (e *mappingError) Unwrap() error { return e.err }

// worker is the front's view of its worker.
type worker struct {
	child *os.Process
	link  *link
}

// startWorker starts a worker, or takes the one that was started early, and
// makes it ready.
func startWorker(p plan) (*worker, error) {
	w, err := newWorker(p.flags)
	if err != nil {
		return nil, fmt.Errorf("start a process in new namespaces: %w", err)
	}
	if p.maps != nil {
		if err := p.maps(w.child.Pid); err != nil {
			w.end()
			return nil, &mappingError{err}
		}
	}
	if err := w.link.send(append([]string{messageGo}, p.notes...)...); err != nil {
		w.end()
		return nil, err
	}
	switch answer, err := w.link.receive(); {
	case err != nil:
		w.end()
		return nil, errors.New("the worker process ended before it was ready")
	case answer[0] != messageReady:
		w.end()
		errno, _ := strconv.Atoi(answer[len(answer)-1])
		return nil, fmt.Errorf("%s: %w", answer[0], syscall.Errno(errno))
	}
	return w, nil
}

// drop ends a worker that was started early and is not wanted.
func drop() {
	if e := early.Take(); e.PID != 0 {
		if child, err := os.FindProcess(e.PID); err == nil {
			(&worker{child, linkOf(e.Socket)}).end()
		}
	}
}

func newWorker(flags uintptr) (*worker, error) {
	if e := early.Take(); e.PID != 0 {
		w := &worker{link: linkOf(e.Socket)}
		var err error
		if w.child, err = os.FindProcess(e.PID); err != nil {
			return nil, err
		}
		if e.Flags == flags {
			return w, nil
		}
		w.end()
	}
	ours, theirs, err := early.Pair()
	if err != nil {
		return nil, err
	}
	info := look()
	env := early.Environment(theirs, flags, info.UID, info.GID)
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Env:   env,
		Sys:   early.Attributes(flags),
	})
	unix.Close(theirs)
	l := linkOf(ours)
	if err != nil {
		l.close()
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno
		}
		return nil, err
	}
	return &worker{child, l}, nil
}

func (w *worker) end() {
	w.child.Kill()
	w.child.Wait()
	w.link.close()
}

// attend passes signals on until the worker has ended, and returns its exit
// status.
func (w *worker) attend(signals <-chan os.Signal) int {
	go func() {
		for s := range signals {
			if n, ok := s.(syscall.Signal); ok {
				w.link.send(messageSignal, strconv.Itoa(int(n)))
			}
		}
	}()
	state, err := w.child.Wait()
	if err != nil {
		return 125
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
