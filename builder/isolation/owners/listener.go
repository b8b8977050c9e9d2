package owners

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// Requests of a listener (uapi/linux/seccomp.h). ppc64 numbers the directions
// of ioctl(2) otherwise.
var (
	notifRecv     = request(dirRead|dirWrite, 0, 80)
	notifSend     = request(dirRead|dirWrite, 1, 24)
	notifIDValid  = request(dirWrite, 2, 8)
	notifSetFlags = request(dirWrite, 4, 8)
)

const (
	dirWrite = 1 << iota
	dirRead
)

func request(dir, nr, size uintptr) uintptr {
	if strings.HasPrefix(runtime.GOARCH, "ppc64") {
		ppc := map[uintptr]uintptr{dirWrite: 4, dirRead: 2, dirRead | dirWrite: 6}
		return ppc[dir]<<29 | size<<16 | '!'<<8 | nr
	}
	return dir<<30 | size<<16 | '!'<<8 | nr
}

const (
	flagContinue = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5
	syncWakeUp   = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6
)

// notification is struct seccomp_notif.
type notification struct {
	id      uint64
	pid     uint32
	flags   uint32
	nr      int32
	arch    uint32
	pointer uint64
	args    [6]uint64
	_       [64]byte // what later kernels may add
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// Supported reports whether filters of this kernel can have a listener that
// lets calls pass.
func Supported() error {
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !strings.Contains(string(b), "user_notif") {
		return errors.New("the kernel has no seccomp notifications (Linux 5.5)")
	}
	return nil
}

// Options are about one step.
type Options struct {
	// Init is the number of the step's first process, before it is waited for.
	Init int
	// Root is a descriptor of the step's root on the mount that the step gets,
	// and Trees are those of other mounts whose files are the builder's own.
	// They are used in Start, and must stay open until Close: their mounts'
	// numbers would be given to others otherwise.
	Root  int
	Trees []int
	// Upper is the directory that takes the changes of the root; nil where there
	// is none: owners of symbolic links are not remembered then.
	Upper *os.File
	// Below returns what is remembered of what has no attributes and lies below
	// Upper; name is a path below the root. It may be nil.
	Below func(name string) (copier.Owner, bool)
	// Remembers says that the root may hold remembered owners already.
	Remembers bool
	// UID, GID and Groups are what the step's first process is told that it is.
	// With KeepGroups, all are told the kernel's groups.
	UID, GID   uint32
	Groups     []uint32
	KeepGroups bool
	// Bounding are the capabilities that programs of root's can have where UID
	// is another (setuid bits); NoNewPrivileges says that they have none.
	Bounding        uint64
	NoNewPrivileges bool
}

// Listener answers the calls of one step.
type Listener struct {
	fd     int
	stop   int // eventfd
	proc   int // our /proc
	mounts map[uint64]struct{}
	root   uint64 // the mount of the step's root
	ns     int    // the step's mount namespace, until it is entered
	userns uint64
	log    *copier.OwnerLog
	upper  int // -1: none
	below  func(string) (copier.Owner, bool)
	calls  map[seccomp.Call]call
	loose  map[looseKey]copier.Owner
	done   sync.WaitGroup

	// The thread's own.
	entered   bool
	lost      bool   // it cannot be there: all is left to the kernel
	rootIno   uint64 // of the step's root directory
	rootFD    int
	remembers bool // there may be owners to show
	err       error

	// What processes are told: at first, and by their tags.
	first           credentials
	tags            []credentials
	keepGroups      bool
	bounding        uint64
	noNewPrivileges bool
	pending         []pending
}

// looseKey is a file that its mount cannot note anything of.
type looseKey struct{ dev, ino uint64 }

var (
	tableOnce sync.Once
	callTable map[seccomp.Call]call
)

// Start answers the calls that fd, a filter's listener, is asked about, on a
// thread of its own, until all processes of the step have ended or Close is
// called. It owns fd.
func Start(fd *os.File, o Options) (_ *Listener, err error) {
	tableOnce.Do(func() { callTable = table() })
	l := &Listener{calls: callTable, fd: -1, stop: -1, proc: -1, ns: -1, rootFD: -1, upper: -1, remembers: o.Remembers, below: o.Below,
		mounts: map[uint64]struct{}{}, loose: map[looseKey]copier.Owner{},
		first: newCredentials(o.UID, o.GID, o.Groups), keepGroups: o.KeepGroups, bounding: o.Bounding, noNewPrivileges: o.NoNewPrivileges}
	defer fd.Close()
	defer func() {
		if err != nil {
			l.closeAll()
		}
	}()
	if l.fd, err = unix.FcntlInt(fd.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return nil, err
	}
	if l.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, err
	}
	if l.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if l.ns, err = unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", o.Init), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Stat("/proc/self/ns/user", &st); err != nil {
		return nil, err
	}
	l.userns = st.Ino
	for i, at := range append([]int{o.Root}, o.Trees...) {
		var stx unix.Statx_t
		if err = unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stx); err != nil {
			return nil, err
		}
		if stx.Mask&unix.STATX_MNT_ID == 0 {
			return nil, errors.New("the kernel numbers no mounts (Linux 5.8)")
		}
		l.mounts[stx.Mnt_id] = struct{}{}
		if i == 0 {
			l.root = stx.Mnt_id
		}
	}
	if o.Upper != nil {
		if l.upper, err = unix.FcntlInt(o.Upper.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return nil, err
		}
		if l.log, err = copier.OpenOwnerLog(o.Upper); err != nil {
			return nil, err
		}
	}
	// The step's thread and ours take turns: no other processor is woken.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifSetFlags, syncWakeUp)
	l.done.Add(1)
	go l.serve()
	return l, nil
}

// Close ends it, when the step has ended, and returns what made it leave calls
// to the kernel that it should have answered.
func (l *Listener) Close() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(l.stop, one[:])
	l.done.Wait()
	err := l.err
	if l.log != nil {
		err = errors.Join(err, l.log.Close())
		l.log = nil
	}
	l.closeAll()
	return err
}

func (l *Listener) closeAll() {
	for _, fd := range []*int{&l.fd, &l.stop, &l.proc, &l.ns, &l.rootFD, &l.upper} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	if l.log != nil {
		l.log.Close()
	}
}

// serve is the thread. It stays locked and ends with the goroutine, since it
// will be in another root.
func (l *Listener) serve() {
	defer l.done.Done()
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread cannot end: another one.
		l.done.Add(1)
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			defer l.done.Done()
			l.loop()
		}()
		<-started
		runtime.UnlockOSThread()
		return
	}
	l.loop()
}

func (l *Listener) loop() {
	defer l.settle(0)
	var n notification
	for {
		fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 || fds[0].Revents&unix.POLLIN == 0 && fds[0].Revents != 0 {
			return
		}
		n = notification{}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifRecv, uintptr(unsafe.Pointer(&n))); e != 0 {
			// ENOENT: the caller was killed or interrupted.
			continue
		}
		r := l.answer(&n)
		r.id = n.id
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifSend, uintptr(unsafe.Pointer(&r)))
	}
}

// valid reports whether the caller still waits, and so whether its number is
// still its own.
func (l *Listener) valid(id uint64) bool {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifIDValid, uintptr(unsafe.Pointer(&id)))
	return e == 0
}

// pass leaves a call to the kernel.
var pass = response{flags: flagContinue}

func failed(e unix.Errno) response { return response{err: -int32(e)} }

// answer decides about one call.
func (l *Listener) answer(n *notification) response {
	c, ok := l.calls[seccomp.Call{Arch: n.arch, Number: uint32(n.nr)}]
	if !ok {
		return pass
	}
	if len(l.pending) > 0 {
		l.settle(n.pid)
	}
	switch c.family {
	case famSetID:
		return l.setIDs(n, &c)
	case famGetID:
		return l.getIDs(n, &c)
	case famSetGroups:
		return l.setGroups(n, &c)
	case famGetGroups:
		return l.getGroups(n, &c)
	case famChown:
		return l.chown(n, &c)
	case famStat, famStatx:
		return l.stat(n, &c)
	}
	return l.making(n, &c)
}

// making answers the calls of makeNames and userNames.
func (l *Listener) making(n *notification, c *call) response {
	switch c.family {
	case famOpen:
		return l.openFile(n, c)
	case famMake:
		return l.make(n, c)
	case famRename:
		return l.rename(n, c)
	case famLink:
		return l.link(n, c)
	case famRemove:
		return l.remove(n, c)
	case famMode:
		return l.mode(n, c)
	case famTimes:
		return l.times(n, c)
	case famAccess:
		return l.access(n, c)
	case famExec:
		return l.exec(n, c)
	}
	return pass
}

// capable reports whether the caller has the capability in our user
// namespace. Only root has any; a step that did not begin as root's has those
// that programs of root's get.
func (l *Listener) capable(pid uint32, told *credentials, capability int) bool {
	if told.user[effective] != 0 {
		return false
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(pid)}
	var data [2]unix.CapUserData
	if unix.Capget(&head, &data[0]) != nil || data[capability/32].Effective&(1<<(capability%32)) == 0 {
		if l.first.user[effective] == 0 || l.bounding&(1<<capability) == 0 {
			return false
		}
	}
	var st unix.Stat_t
	return unix.Fstatat(l.proc, procName(pid, "ns/user"), &st, 0) == nil && st.Ino == l.userns
}
