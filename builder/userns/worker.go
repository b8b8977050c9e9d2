package userns

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// becomeWorker makes of the process what its namespaces promise.
func becomeWorker(m workerMark) Info {
	words, err := m.receive()
	if err != nil || words[0] != messageGo {
		// The front has gone, or chose another plan.
		os.Exit(1)
	}
	if err := settle(m.flags); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		m.send(err.Error(), strconv.Itoa(int(errno)))
		os.Exit(1)
	}
	info := look()
	info.Worker, info.Front = true, m.front
	info.PIDNamespace = m.flags&unix.CLONE_NEWPID != 0
	info.Notes = words[1:]
	if m.flags&unix.CLONE_NEWUSER != 0 && info.UID != 0 {
		settleRuntimeDir(info.UID)
	}
	if info.SingleID && m.flags&unix.CLONE_NEWUSER == 0 {
		info.Notes = append(info.Notes, singleNote(errors.New("the user namespace around this program maps no more")))
	}
	forward(m.link)
	if err := m.send(messageReady); err != nil {
		os.Exit(1)
	}
	return info
}

// settle takes on the ids and mounts what the namespaces need. Its errors
// name the action; the front adds the errno's text and the remedy.
func settle(flags uintptr) error {
	if flags&unix.CLONE_NEWUSER != 0 {
		if err := becomeRoot(); err != nil {
			return err
		}
	}
	// Nothing of ours must appear on the host; what the host mounts and
	// unmounts may appear here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return action("separate the mount namespace", err)
	}
	if flags&unix.CLONE_NEWPID != 0 {
		keepHostProc()
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return action("mount a /proc for the pid namespace", err)
		}
	}
	return nil
}

// actionError is an errno with the action that met it, which is its text.
type actionError struct {
	what string
	err  error
}

func (e *actionError) Error() string { return e.what }
func (e *actionError) Unwrap() error { return e.err }

func action(what string, err error) error { return &actionError{what, err} }

// becomeRoot takes on id 0 of the user namespace in all threads. The
// capabilities that came by the ambient set stay in the permitted and
// effective ones; programs that we execute must not get them by ambient.
func becomeRoot() error {
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return action("take on group 0 of the user namespace", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return action("take on user 0 of the user namespace", err)
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); e != 0 {
		return action("clear ambient capabilities", e)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return action("read capabilities", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data)), 0)
	runtime.KeepAlive(&head)
	if e != 0 {
		return action("clear inheritable capabilities", e)
	}
	// Changing ids has cleared it. That the front is still there, the answer
	// to it will show.
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0); e != 0 {
		return action("ask for a signal when the parent ends", e)
	}
	return nil
}

// listen asks for the signals that the front passes on. SIGHUP stays ignored
// where it is (nohup(1)).
func listen(c chan<- os.Signal) {
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(c, syscall.SIGHUP)
	}
}

// settleTime is how long a signal that was sent to a whole group may take to
// reach both processes.
const settleTime = 100 * time.Millisecond

// forward raises in this process the signals that the front got and we did
// not. A signal to the process group (from the terminal, timeout(1), a service
// manager) reaches both of us; one to the front alone only the front.
func forward(l *link) {
	d := &dedupe{seen: map[syscall.Signal][]time.Time{}, raised: map[syscall.Signal]int{}}
	direct := make(chan os.Signal, 64)
	listen(direct)
	go func() {
		for s := range direct {
			if n, ok := s.(syscall.Signal); ok {
				d.note(n)
			}
		}
	}()
	go func() {
		for {
			words, err := l.receive()
			if err != nil {
				// The front is dead, and so are we (pdeathsig), or nearly.
				os.Exit(128 + int(syscall.SIGKILL))
			}
			if len(words) == 2 && words[0] == messageSignal {
				if n, err := strconv.Atoi(words[1]); err == nil {
					go d.deliver(syscall.Signal(n))
				}
			}
		}
	}()
}

// dedupe pairs signals that came directly with those that the front reports.
type dedupe struct {
	mu     sync.Mutex
	seen   map[syscall.Signal][]time.Time
	raised map[syscall.Signal]int // by us, and not noted yet
}

// note remembers a signal that came directly, unless we raised it ourselves.
func (d *dedupe) note(n syscall.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raised[n] > 0 {
		d.raised[n]--
		return
	}
	d.seen[n] = append(d.seen[n], time.Now())
}

// deliver raises n unless it has come, or comes soon, by itself.
func (d *dedupe) deliver(n syscall.Signal) {
	deadline := time.Now().Add(settleTime)
	for {
		if d.take(n) {
			return
		}
		if !time.Now().Before(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	d.mu.Lock()
	d.raised[n]++
	d.mu.Unlock()
	syscall.Kill(os.Getpid(), n)
}

// take uses up one recent direct signal.
func (d *dedupe) take(n syscall.Signal) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.seen[n]
	for len(list) > 0 && time.Since(list[0]) > 2*settleTime {
		list = list[1:]
	}
	if len(list) == 0 {
		d.seen[n] = nil
		return false
	}
	d.seen[n] = list[1:]
	return true
}

// String makes an Info readable in a bug report.
func (i Info) String() string {
	return fmt.Sprintf("worker=%t pidns=%t rootless=%t single=%t uid=%d gid=%d", i.Worker, i.PIDNamespace, i.Rootless, i.SingleID, i.UID, i.GID)
}
