package userns

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// plan is one way to start a worker.
type plan struct {
	flags uintptr
	// mapper writes the id maps; without one uids and gids do, and without
	// those no map is written because there is no user namespace.
	mapper    *mapper
	uids      []syscall.SysProcIDMap
	gids      []syscall.SysProcIDMap
	setgroups bool
	single    bool
	explained bool // notes say why single
	notes     []string
}

const noPIDNamespace = "steps run without an outer pid namespace, because /proc cannot be mounted here: " +
	"killing this program with SIGKILL may leave processes of steps behind"

// rootPlans are for root with CAP_SYS_ADMIN. Without a pid namespace a worker
// has no purpose.
func rootPlans() []plan {
	return []plan{{flags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}}
}

// userPlans are for everybody else, the best first.
func userPlans(o Options) []plan {
	uid, gid := os.Getuid(), os.Getgid()
	single := plan{
		single: true,
		uids:   []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		gids:   []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
	m, err := newMapper(uid, gid)
	if err != nil {
		single.explained, single.notes = true, []string{singleNote(err)}
		return withPIDs(o, single)
	}
	return withPIDs(o, plan{mapper: m}, single)
}

// nestedPlans are for root that lost CAP_SYS_ADMIN: with CAP_SETUID it may
// map all of its own ids.
func nestedPlans(o Options) []plan {
	return withPIDs(o,
		plan{setgroups: true, uids: identity("/proc/self/uid_map"), gids: identity("/proc/self/gid_map")},
		plan{
			single:    true,
			explained: true,
			uids:      []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			gids:      []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			notes:     []string{singleNote(errors.New("this container's root may not map more"))},
		})
}

func singleNote(cause error) string {
	return fmt.Sprintf("only one user id is available: %v; files of other owners become root's, and USER cannot be used", cause)
}

// identity maps every id of our user namespace to itself.
func identity(file string) (out []syscall.SysProcIDMap) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for f := strings.Fields(string(b)); len(f) >= 3; f = f[3:] {
		start, err1 := strconv.ParseUint(f[0], 10, 32)
		size, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(start), HostID: int(start), Size: int(size)})
		}
	}
	return out
}

// withPIDs completes the plans for user namespaces: each with a pid namespace
// first where one is wanted, then all without.
func withPIDs(o Options, plans ...plan) (out []plan) {
	if o.PIDNamespace {
		for _, p := range plans {
			p.flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID
			out = append(out, p)
		}
	}
	for _, p := range plans {
		p.flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		if o.PIDNamespace {
			p.notes = append([]string{noPIDNamespace}, p.notes...)
		}
		out = append(out, p)
	}
	return out
}

// front starts a worker by the first plan that works, and exits as it does.
// It returns when none works.
func front(plans []plan) error {
	// The worker is killed when the thread that started it ends.
	runtime.LockOSThread()
	// From here on signals wait, so that none is lost or kills the front alone.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	var first error
	var mapping error
	for _, p := range plans {
		if p.single && !p.explained && mapping != nil {
			p.notes = append(p.notes, singleNote(mapping))
		}
		w, err := startWorker(p)
		if err == nil {
			os.Exit(w.attend(signals))
		}
		if first == nil {
			first = explain(err)
		}
		if m, ok := errors.AsType[*mappingError](err); ok {
			mapping = m.err
		}
	}
	signal.Stop(signals)
	runtime.UnlockOSThread()
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

func startWorker(p plan) (*worker, error) {
	ours, theirs, err := newLink()
	if err != nil {
		return nil, err
	}
	sys := &syscall.SysProcAttr{
		Cloneflags:                 p.flags,
		Pdeathsig:                  syscall.SIGKILL,
		UidMappings:                p.uids,
		GidMappings:                p.gids,
		GidMappingsEnableSetgroups: p.setgroups,
	}
	if p.flags&unix.CLONE_NEWUSER != 0 {
		// Capabilities that survive execve without a mapped id 0: no second
		// execve is needed once the maps are there.
		for c := range uintptr(64) {
			if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
				break
			}
			sys.AmbientCaps = append(sys.AmbientCaps, c)
		}
	}
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Env:   workerEnv(p, theirs.number()),
		Sys:   sys,
	})
	theirs.close()
	if err != nil {
		ours.close()
		if sys, ok := errors.AsType[syscall.Errno](err); ok {
			err = sys
		}
		if p.uids != nil && errors.Is(err, unix.EPERM) && canUnshareUser() {
			return nil, &mappingError{err}
		}
		return nil, fmt.Errorf("start a process in new namespaces: %w", err)
	}
	w := &worker{child, ours}
	if p.mapper != nil {
		if err := p.mapper.run(child.Pid); err != nil {
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

// canUnshareUser reports whether user namespaces as such are allowed, which
// tells a refused map from a refused namespace: Go reports both alike.
func canUnshareUser() bool {
	// What is to be executed does not exist, so nothing is: only a refused
	// namespace gives another error.
	_, err := os.StartProcess("/proc/self/no such file", []string{""}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER},
	})
	return errors.Is(err, unix.ENOENT)
}

func (w *worker) end() {
	w.child.Kill()
	w.child.Wait()
	w.link.close()
}

// workerEnv is our environment, with what tells the worker what it is.
func workerEnv(p plan, fd int) []string {
	drop := []string{workerVariable + "="}
	add := []string{workerVariable + "=" + strconv.Itoa(fd) + ":" + strconv.FormatUint(uint64(p.flags), 10)}
	if p.flags&unix.CLONE_NEWUSER != 0 {
		info := look()
		for name, value := range map[string]string{
			"_CONTAINERS_USERNS_CONFIGURED": "done",
			"_CONTAINERS_ROOTLESS_UID":      strconv.Itoa(info.UID),
			"_CONTAINERS_ROOTLESS_GID":      strconv.Itoa(info.GID),
		} {
			drop = append(drop, name+"=")
			add = append(add, name+"="+value)
		}
		if os.Getenv("HOME") == "" {
			// Inside, id 0 would be taken for root and get root's directory.
			if u, err := user.Current(); err == nil && u.HomeDir != "" {
				drop = append(drop, "HOME=")
				add = append(add, "HOME="+u.HomeDir)
			}
		}
	}
	var env []string
next:
	for _, e := range os.Environ() {
		for _, d := range drop {
			if strings.HasPrefix(e, d) {
				continue next
			}
		}
		env = append(env, e)
	}
	return append(env, add...)
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
