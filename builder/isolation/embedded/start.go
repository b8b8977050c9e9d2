package embedded

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation/embedded/early"
)

// namespaceFlags are the namespaces that every step has.
const namespaceFlags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// starter starts inits, all from one thread that stays: the signal that a
// child asked for when its parent dies is sent when the parent's *thread*
// ends, and Go ends threads of locked goroutines.
type starter struct {
	requests chan startRequest
	once     sync.Once

	exe     *os.File // our own file on a read-only detached mount
	exeErr  error
	null    *os.File
	exeOnce sync.Once

	copied   *os.File // a copy of it, that all may execute
	copyErr  error
	copyOnce sync.Once
}

type startRequest struct {
	flags   uintptr
	foreign *foreign // nil: in this process's user namespace
	answer  chan startAnswer
}

type startAnswer struct {
	p   *process
	err error
}

func newStarter() (*starter, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &starter{null: null, requests: make(chan startRequest)}, nil
}

// start starts an init in new namespaces.
func (s *starter) start(flags uintptr) (*process, error) {
	return s.request(startRequest{flags: flags})
}

func (s *starter) request(r startRequest) (*process, error) {
	s.once.Do(func() { go s.serve() })
	r.answer = make(chan startAnswer, 1)
	s.requests <- r
	a := <-r.answer
	return a.p, a.err
}

// serve is the thread.
func (s *starter) serve() {
	runtime.LockOSThread()
	// The thread goes back to Go's pool, it does not end.
	defer runtime.UnlockOSThread()
	for r := range s.requests {
		p, err := s.fork(r.flags, r.foreign)
		r.answer <- startAnswer{p, err}
	}
}

func (s *starter) fork(flags uintptr, f *foreign) (*process, error) {
	exe, err := s.programFor(f)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketsAbove(exe)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	defer theirs.Close()
	p := &process{socket: ours, flags: flags}
	name, files := early.Name, []*os.File{s.null, s.null, s.null, theirs}
	sys := &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	f.attributesOf(sys)
	if flags&unix.CLONE_NEWPID == 0 && f == nil {
		control, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			unix.Close(ours)
			return nil, fmt.Errorf("socket pair: %w", err)
		}
		p.control = os.NewFile(uintptr(control[0]), "monitor")
		end := os.NewFile(uintptr(control[1]), "control")
		defer end.Close()
		// It gets no signal when the builder dies, it sees the socket's end:
		// there may be more to end than its child. A session of its own: ^C at
		// our terminal is the builder's to handle.
		name, files, sys = monitorName, append(files, end), &syscall.SysProcAttr{Setsid: true}
	}
	p.child, err = os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), []string{name},
		&os.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	if err == nil {
		p.pid = p.child.Pid
		if p.control != nil {
			// Ours closed first: should the monitor die, nobody has its side.
			closeAll(files[3:])
			if err = p.askMonitor(); err != nil {
				p.end()
				return nil, fmt.Errorf("start a process in new namespaces: %w", err)
			}
		}
		return p, nil
	}
	p.close()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno // without the descriptor's path, which tells nobody anything
	}
	if f != nil {
		return nil, explainForeign(err)
	}
	return nil, fmt.Errorf("start a process in new namespaces: %w", err)
}

// socketsAbove makes a pair of sockets, the child's with a number above the
// program's. In a child, Go moves the pipe on which it reports errors to the
// number behind the highest of the files that it passes on, when the pipe has
// a lower one: what is to be executed must not be there.
func socketsAbove(program *os.File) (ours int, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	if theirs, err = highFile(pair[1], int(program.Fd())+1); err != nil {
		unix.Close(pair[0])
		return -1, nil, err
	}
	return pair[0], theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (s *starter) close() error {
	s.once.Do(func() {})
	close(s.requests)
	for _, f := range []*os.File{s.exe, s.copied} {
		if f != nil {
			f.Close()
		}
	}
	return s.null.Close()
}

// openSelf opens this program's file on a detached read-only mount, so that a
// step that executes or opens /proc/self/exe or /proc/1/exe cannot write to
// it (CVE-2019-5736). It costs some 30 us; a copy would cost 9 ms.
func openSelf() (*os.File, error) {
	fd, err := cloneSelf()
	switch {
	case errors.Is(err, errSelfGone):
		fd, err = copySelf()
	case err == nil:
		if err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
			Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
			Propagation: unix.MS_PRIVATE,
		}); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open this program read-only: %w", err)
	}
	return highFile(fd, beyondChild)
}

// beyondChild is above the numbers that files have in a child.
const beyondChild = 10

// highFile gives a descriptor a number of at least least.
func highFile(fd, least int) (*os.File, error) {
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(high), "strata"), nil
}

var errSelfGone = errors.New("this program's file was moved or replaced")

// cloneSelf clones the mount of this program's file. /proc/self/exe leads to
// the mount that the program was executed from; when that is one of another
// mount namespace (a process that was started into a new one), it cannot be
// cloned (EINVAL), but the same file on this namespace's mount can.
func cloneSelf() (int, error) {
	const self, flags = "/proc/self/exe", unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	fd, err := unix.OpenTree(unix.AT_FDCWD, self, flags)
	if !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	path, err := os.Readlink(self)
	if err != nil {
		return -1, err
	}
	if fd, err = unix.OpenTree(unix.AT_FDCWD, path, flags); err != nil {
		return -1, errSelfGone
	}
	var want, got unix.Stat_t
	if unix.Stat(self, &want) != nil || unix.Fstat(fd, &got) != nil || want.Dev != got.Dev || want.Ino != got.Ino {
		unix.Close(fd)
		return -1, errSelfGone
	}
	return fd, nil
}

// copySelf copies this program into a sealed memory file (memfd_create(2)).
func copySelf() (int, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return -1, err
	}
	defer self.Close()
	fd, err := unix.MemfdCreate("strata", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	for {
		n, err := unix.Sendfile(fd, int(self.Fd()), nil, 1<<30)
		if err != nil && !errors.Is(err, unix.EINTR) {
			unix.Close(fd)
			return -1, err
		}
		if err == nil && n == 0 {
			break
		}
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
