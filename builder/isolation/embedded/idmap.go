package embedded

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/define"
)

// foreign is what a step with a user namespace of its own is started with. All
// its namespaces must be made together with that one, for they belong to it;
// those that it joins are another's, which only the builder can join: it does
// so on a thread, which the step is started from.
type foreign struct {
	uids, gids []syscall.SysProcIDMap
	joins      []join
	// hard are the limits that the init may not raise itself.
	hard []early.Rlimit
}

// join is a namespace to join.
type join struct {
	fd   int
	kind int // CLONE_NEW*
}

// mapped prepares a step whose spec has a map of ids.
func (p *plan) mapped(s *isolation.Spec, shared bool) error {
	if len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) == 0 {
		return nil
	}
	switch {
	case shared:
		return fmt.Errorf("a map of ids without a pid namespace, which this host does not give: leave the map out: %w", define.ErrUnsupported)
	case !s.HasNamespace(specs.PIDNamespace):
		return fmt.Errorf("a map of ids, and the host's pid namespace: want one or the other: %w", define.ErrUnsupported)
	}
	f, err := newForeign(isolation.IDMap{UID: s.Linux.UIDMappings, GID: s.Linux.GIDMappings})
	p.foreign = f
	return err
}

func newForeign(m isolation.IDMap) (*foreign, error) {
	if host().userns {
		own, err := isolation.OwnIDs()
		if err != nil {
			return nil, err
		}
		m = m.Within(own)
	}
	return &foreign{uids: processMap(m.UID), gids: processMap(m.GID)}, nil
}

func processMap(list []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(list))
	for i, m := range list {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}

// givePipe makes a pipe of the builder's the step's user's, who could not open
// /dev/stdout otherwise; from inside the namespace that cannot be done.
func (p *plan) givePipe(f *os.File, s *isolation.Spec) {
	if p.foreign == nil {
		return
	}
	var st unix.Stat_t
	fd := int(f.Fd())
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return
	}
	m := isolation.IDMap{UID: s.Linux.UIDMappings, GID: s.Linux.GIDMappings}
	if uid, ok := m.UserOutside(s.Process.User.UID); ok {
		_ = unix.Fchown(fd, int(uid), -1) // a pipe of somebody else's stays so
	}
}

// startForeign starts an init in a user namespace of its own, if need be from
// a thread of its own, which lives as long as the init: that would be killed
// when it ends.
func (s *starter) startForeign(flags uintptr, f *foreign) (*process, error) {
	if len(f.joins) == 0 {
		return s.request(startRequest{flags: flags, foreign: f})
	}
	answer := make(chan startAnswer, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		for _, j := range f.joins {
			if err := unix.Setns(j.fd, j.kind); err != nil {
				answer <- startAnswer{nil, fmt.Errorf("join a namespace: %w", err)}
				return
			}
		}
		p, err := s.fork(flags, f)
		if err != nil {
			answer <- startAnswer{nil, err}
			return
		}
		p.ended = make(chan struct{})
		answer <- startAnswer{p, nil}
		<-p.ended
	}()
	a := <-answer
	return a.p, a.err
}

// raise raises the hard limits of an init, and nothing else: it has to set up
// the step yet.
func (f *foreign) raise(pid int) {
	for _, l := range f.hard {
		var have unix.Rlimit
		if unix.Prlimit(pid, int(l.Resource), nil, &have) == nil && l.Hard > have.Max {
			have.Max = l.Hard
			_ = unix.Prlimit(pid, int(l.Resource), &have, nil) // it is clamped then
		}
	}
}

// NewUserNamespace makes a user namespace with a map, for mounts that show
// their owners through it (MOUNT_ATTR_IDMAP). It lasts as long as the file.
func NewUserNamespace(m isolation.IDMap) (*os.File, error) {
	f, err := newForeign(m)
	if err != nil {
		return nil, err
	}
	s, err := newStarter()
	if err != nil {
		return nil, err
	}
	defer s.close()
	p, err := s.startForeign(unix.CLONE_NEWUSER, f)
	if err != nil {
		return nil, err
	}
	defer p.end()
	return os.Open("/proc/" + strconv.Itoa(p.pid) + "/ns/user")
}

// attributesOf completes how an init is started.
func (f *foreign) attributesOf(sys *syscall.SysProcAttr) {
	if f == nil {
		return
	}
	sys.UidMappings, sys.GidMappings = f.uids, f.gids
	sys.GidMappingsEnableSetgroups = !host().denySetgroup
	sys.Credential = &syscall.Credential{NoSetGroups: true} // root of the namespace
}

// programFor returns the file to execute: the ids of a namespace may be such
// as may not execute ours, where a copy may be executed by all.
func (s *starter) programFor(f *foreign) (*os.File, error) {
	s.exeOnce.Do(func() { s.exe, s.exeErr = openSelf() })
	if s.exeErr != nil || f == nil {
		return s.exe, s.exeErr
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.exe.Fd()), &st); err != nil || st.Mode&0o005 == 0o005 {
		return s.exe, err
	}
	s.copyOnce.Do(func() {
		var fd int
		if fd, s.copyErr = copySelf(); s.copyErr == nil {
			s.copied, s.copyErr = highFile(fd, beyondChild)
		}
	})
	return s.copied, s.copyErr
}

// explainForeign says what a refusal means where a user namespace is made.
func explainForeign(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("user namespace of the step: %w: the ids of the map must be such as this process has, and user namespaces allowed (strata doctor says whether they are): %w",
			err, define.ErrUnsupported)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("user namespace of the step: %w: a limit of namespaces is reached, see sysctl user.max_user_namespaces: %w", err, define.ErrUnsupported)
	}
	return err
}
