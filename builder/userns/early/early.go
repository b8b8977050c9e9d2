// Package early starts the worker of a program that will want one, before the
// rest of the program is initialised.
//
// The front process and the worker are the same program, and initialising it
// takes some 4 ms. Go initialises packages by import path as soon as their
// dependencies are ready; this one imports only syscall, so its init function
// runs ahead of nearly all others. When the command line names a command that
// works in namespaces, it starts the worker right there, and both processes
// initialise at the same time, on two cores. userns.Enter then finds the
// worker started.
//
// It is a guess that saves time and changes nothing else: a worker that waits
// for a word from Enter and does not get it ends.
package early

import (
	"syscall"
	"unsafe"
)

// Variable is the name in the environment that tells a worker what it is:
// "<descriptor>:<clone flags>:<the front's pid>".
const Variable = "_STRATA_WORKER"

// Flags of the namespaces that workers get.
const (
	RootFlags  = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	UserFlags  = RootFlags | syscall.CLONE_NEWUSER
	StoreFlags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER // commands without steps
)

// Worker is a worker that was started: its process, our end of the
// connection, and the clone flags it has. PID 0 is none.
type Worker struct {
	PID    int
	Socket int
	Flags  uintptr
}

var started Worker

// Take returns the worker that was started, once.
func Take() Worker {
	w := started
	started = Worker{}
	return w
}

func init() {
	fewDescriptors()
	args := commandLine()
	c := command(args)
	if !steps(c) && !stores(c) || asks(args) {
		return
	}
	uid := syscall.Geteuid()
	flags := uintptr(StoreFlags)
	switch {
	case uid != 0 && uid == syscall.Getuid():
		if steps(c) {
			flags = UserFlags
		}
	case uid == 0 && steps(c) && capable():
		flags = RootFlags
	default:
		return
	}
	if _, ok := syscall.Getenv(Variable); ok {
		return
	}
	if !settled(uid) {
		return // Enter changes the environment, which workers inherit
	}
	start(args, flags)
}

// leastDescriptors is below what any command needs; Go's runtime ends with a
// trace, not an error, when it cannot open what it polls with.
const leastDescriptors = 10

// fewDescriptors ends the program when it may open next to no files. The soft
// limit does not matter: Go raises it to the hard one.
func fewDescriptors() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil || l.Max >= leastDescriptors {
		return
	}
	syscall.Write(2, []byte("Error: the limit of open files is too low for anything; raise it, as ulimit -n 1024 does\n"))
	syscall.Exit(125)
}

// settled reports an environment that userns.Enter will leave as it is: a
// home directory that a user can enter, and a runtime directory of their own.
func settled(uid int) bool {
	home, _ := syscall.Getenv("HOME")
	if home == "" {
		return false
	}
	if uid == 0 {
		return true
	}
	if syscall.Access(home, 1 /* X_OK */) == syscall.EACCES {
		return false
	}
	dir, _ := syscall.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return true
	}
	var st syscall.Stat_t
	err := syscall.Stat(dir, &st)
	return err == syscall.ENOENT || err == nil && int(st.Uid) == uid
}

// commandLine returns the program's arguments. os.Args is not there yet.
func commandLine() (args []string) {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	var all []byte
	var b [8192]byte
	for {
		n, err := syscall.Read(fd, b[:])
		if n <= 0 || err != nil {
			break
		}
		if all == nil && !mentions(string(b[:n])) {
			return nil // spares the rest of a long line
		}
		all = append(all, b[:n]...)
	}
	from := 0
	for i, c := range all {
		if c == 0 {
			args = append(args, string(all[from:i]))
			from = i + 1
		}
	}
	return args
}

// mentions reports whether a command line has two words at all.
func mentions(line string) bool {
	for i := 0; i < len(line)-1; i++ {
		if line[i] == 0 {
			return true
		}
	}
	return false
}

// command returns the first argument that is no flag. The value of a flag that
// is not known here may be taken for it; then nothing is guessed.
func command(args []string) string {
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "" || a[0] != '-':
			return a
		case takesValue(a):
			i++
		}
	}
	return ""
}

// takesValue reports the global flags whose value is the next argument.
func takesValue(flag string) bool {
	switch flag {
	case "--root", "--runroot", "--storage-driver", "--storage-opt", "--log-level", "--cgroup-manager":
		return true
	}
	return false
}

// steps reports the commands that run steps.
func steps(command string) bool {
	switch command {
	case "build", "bud", "build-using-dockerfile", "run":
		return true
	}
	return false
}

// asks reports flags of build that want an answer about the Containerfile and
// no build. Mistaken for one, a build starts its worker in Enter.
func asks(args []string) bool {
	for _, a := range args {
		switch {
		case a == "--check", a == "--call", len(a) > 7 && a[:7] == "--call=", len(a) > 8 && a[:8] == "--check=":
			return true
		}
	}
	return false
}

// stores reports the other commands that open the store.
func stores(command string) bool {
	switch command {
	case "from", "copy", "add", "commit", "config", "mount", "umount", "unmount", "images", "containers", "ls", "ps", "list",
		"inspect", "pull", "push", "rm", "delete", "rmi", "tag", "manifest", "rename", "prune", "unshare":
		return true
	}
	return false
}

// capable reports CAP_SYS_ADMIN in the effective set.
func capable() bool {
	head := struct {
		version uint32
		pid     int32
	}{version: 0x20080522}
	var data [2][3]uint32
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data)), 0)
	return e == 0 && data[0][0]&(1<<21) != 0
}

// start starts the worker. Where that fails, Enter tries again and says why.
func start(args []string, flags uintptr) {
	ours, theirs, err := Pair()
	if err != nil {
		return
	}
	env := Environment(theirs, flags, syscall.Getuid(), syscall.Getgid())
	pid, _, err := syscall.StartProcess("/proc/self/exe", args, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   Attributes(flags),
	})
	syscall.Close(theirs)
	if err != nil {
		syscall.Close(ours)
		return
	}
	started = Worker{PID: pid, Socket: ours, Flags: flags}
}

// Pair makes a connection. The worker's end is inherited by number, one that
// shells do not use, so that descriptors that the user opened for the program
// keep theirs.
func Pair() (ours, theirs int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	for _, least := range [...]uintptr{200, 4} {
		n, _, e := syscall.RawSyscall(fcntl, uintptr(pair[1]), syscall.F_DUPFD, least)
		if e == 0 {
			syscall.Close(pair[1])
			return pair[0], int(n), nil
		}
		err = e
	}
	syscall.Close(pair[0])
	syscall.Close(pair[1])
	return -1, -1, err
}

// Attributes are how a worker is started. In a user namespace it gets all
// capabilities in the ambient set: they survive execve although no id is
// mapped yet, so that no second execve is needed once the maps are written.
func Attributes(flags uintptr) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&syscall.CLONE_NEWUSER != 0 {
		for c := uintptr(0); c < 64; c++ {
			if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, 23 /* PR_CAPBSET_READ */, c, 0); e != 0 {
				break
			}
			sys.AmbientCaps = append(sys.AmbientCaps, c)
		}
	}
	return sys
}

// Environment is this process's, with what tells a worker what it is, and in
// a user namespace what containers/storage looks at: the ids outside.
func Environment(fd int, flags uintptr, uid, gid int) []string {
	add := []string{Variable + "=" + itoa(fd) + ":" + itoa(int(flags)) + ":" + itoa(syscall.Getpid())}
	if flags&syscall.CLONE_NEWUSER != 0 {
		add = append(add, "_CONTAINERS_USERNS_CONFIGURED=done",
			"_CONTAINERS_ROOTLESS_UID="+itoa(uid), "_CONTAINERS_ROOTLESS_GID="+itoa(gid))
	}
	var env []string
next:
	for _, e := range syscall.Environ() {
		for _, a := range add {
			if name := a[:index(a, '=')+1]; len(e) >= len(name) && e[:len(name)] == name {
				continue next
			}
		}
		env = append(env, e)
	}
	return append(env, add...)
}

func index(s string, c byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return i
		}
	}
	return -1
}

func itoa(n int) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
