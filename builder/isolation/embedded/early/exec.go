package early

import (
	"syscall"
	"unsafe"
)

const (
	prSetPdeathsig   = 1
	prCapbsetDrop    = 24
	prSetSeccomp     = 22
	prSetSecurebits  = 28
	prSetNoNewPrivs  = 38
	prCapAmbient     = 47
	prCapAmbientZero = 4

	secbitNoroot       = 1
	secbitNorootLocked = 2

	seccompModeFilter    = 2
	seccompSetModeFilter = 1
	seccompNewListener   = 1 << 3
	seccompWaitKillable  = 1 << 5
)

// become gives the process the step's limits, identity and rights. The order
// matters: the filter needs CAP_SYS_ADMIN unless NoNewPrivileges is set, and
// what comes after it must pass the filter.
func (b *box) become() {
	c := b.c
	for i := range c.Rlimits {
		setRlimit(&c.Rlimits[i])
	}
	b.chdir(c.Cwd)
	for n := uintptr(0); n < 64; n++ {
		if c.Bounding&(1<<n) == 0 {
			if e := prctl(prCapbsetDrop, n, 0); e == syscall.EINVAL {
				break // the kernel's last one was n-1
			} else if e != 0 {
				fail(e, "drop capability "+itoa(int(n)))
			}
		}
	}
	if len(c.Asking) > 0 {
		// Nobody answers about these yet. A listener is for namespaces of one
		// id: its user keeps the capabilities.
		b.ids()
	}
	if c.Flags&NoNewPrivileges == 0 {
		b.seccomp()
	}
	if len(c.Asking) == 0 {
		b.ids()
	}
	b.capabilities()
	if c.Flags&NoNewPrivileges != 0 {
		if e := prctl(prSetNoNewPrivs, 1, 0); e != 0 {
			fail(e, "set no_new_privs")
		}
		b.seccomp()
	}
}

// setRlimit sets a limit. Where the hard limit may not be raised (in a user
// namespace CAP_SYS_RESOURCE is not enough), the highest that is allowed is
// set.
func setRlimit(l *Rlimit) {
	limit := [2]uint64{l.Soft, l.Hard}
	set := func() syscall.Errno {
		_, e := call6(syscall.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		return e
	}
	e := set()
	if e == syscall.EPERM {
		var have [2]uint64
		_, e = call6(syscall.SYS_PRLIMIT64, 0, uintptr(l.Resource), 0, uintptr(unsafe.Pointer(&have)), 0, 0)
		if e == 0 {
			limit[1] = min(limit[1], have[1])
			limit[0] = min(limit[0], limit[1])
			e = set()
		}
	}
	if e != 0 {
		fail(e, "set limit "+itoa(int(l.Resource)))
	}
}

// sockFprog is struct sock_fprog.
type sockFprog struct {
	length uint16
	filter *byte
}

func (b *box) seccomp() {
	if b.asking() || len(b.c.Seccomp) < 8 {
		return
	}
	program := sockFprog{uint16(len(b.c.Seccomp) / 8), &b.c.Seccomp[0]}
	if e := prctl(prSetSeccomp, seccompModeFilter, uintptr(unsafe.Pointer(&program))); e != 0 {
		fail(e, "load the seccomp filter")
	}
}

// asking loads the filter with a listener and sends that away. A kernel
// before 5.0 has none, and a filter around this process may have one already
// (EBUSY): then the other filter is loaded.
func (b *box) asking() bool {
	if len(b.c.Asking) < 8 {
		if b.c.Flags&NoRoot != 0 {
			fail(syscall.ENOSYS, "another user than root, where one id is mapped")
		}
		return false
	}
	program := sockFprog{uint16(len(b.c.Asking) / 8), &b.c.Asking[0]}
	fd, e := call(sysSeccomp, seccompSetModeFilter, seccompNewListener|seccompWaitKillable, uintptr(unsafe.Pointer(&program)))
	if e == syscall.EINVAL { // before Linux 5.19
		fd, e = call(sysSeccomp, seccompSetModeFilter, seccompNewListener, uintptr(unsafe.Pointer(&program)))
	}
	if e != 0 {
		if b.c.Flags&NoRoot != 0 {
			fail(e, "another user than root, where one id is mapped: a listener for the seccomp filter")
		}
		return false
	}
	report(ReportListener, 0, "", fd)
	closeFD(fd)
	return true
}

// ids changes the ids.
func (b *box) ids() {
	c := b.c
	if c.Flags&SetGroups != 0 {
		var p *uint32
		if len(c.Groups) > 0 {
			p = &c.Groups[0]
		}
		if _, e := call(sysSetgroups, uintptr(len(c.Groups)), uintptr(unsafe.Pointer(p)), 0); e != 0 {
			fail(e, "set supplementary groups")
		}
	}
	gid, uid := uintptr(c.GID), uintptr(c.UID)
	if _, e := call(sysSetresgid, gid, gid, gid); e != 0 {
		fail(e, "set group "+itoa(int(c.GID)))
	}
	if _, e := call(sysSetresuid, uid, uid, uid); e != 0 {
		fail(e, "set user "+itoa(int(c.UID)))
	}
}

// capabilities drops those that the step shall not have.
func (b *box) capabilities() {
	c := b.c
	if c.Flags&NoRoot != 0 {
		if e := prctl(prSetSecurebits, secbitNoroot|secbitNorootLocked, 0); e != 0 {
			fail(e, "set securebits")
		}
	}
	// Inheritable and ambient are empty always (CVE-2022-27651 and its kin).
	if e := prctl(prCapAmbient, prCapAmbientZero, 0); e != 0 && e != syscall.EINVAL {
		fail(e, "clear ambient capabilities")
	}
	head := struct {
		version uint32
		pid     int32
	}{version: 0x20080522}
	low, high := uint32(c.Effective), uint32(c.Effective>>32)
	data := [2][3]uint32{{low, low, 0}, {high, high, 0}}
	if _, e := call(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data)), 0); e != 0 {
		fail(e, "set capabilities")
	}
}

// exec executes the step's program and does not return.
func (b *box) exec() {
	c := b.c
	call(syscall.SYS_UMASK, 0o022, 0, 0)
	resetSignals()
	// setresuid has cleared it. The builder may have died before: a closed
	// socket says so.
	prctl(prSetPdeathsig, uintptr(syscall.SIGKILL), 0)
	if hungUp() {
		exit(1)
	}
	b.apparmor()
	report(ReportStart, 0, "", -1)
	// The step has its standard three and nothing else; the builder sees the
	// socket end when the program has been executed.
	call(sysCloseRange, socketFD, ^uintptr(0), closeRangeCloexec)
	argv, envp := vector(c.Args), vector(c.Env)
	name := c.Args[0]
	if indexByte(name, '/') >= 0 {
		e := execve(name, argv, envp)
		report(ReportExec, e, name, -1)
		exit(1)
	}
	result := syscall.ENOENT
	path := searchPath(c.Env)
	for len(path) > 0 {
		dir := path
		if i := indexByte(path, ':'); i >= 0 {
			dir, path = path[:i], path[i+1:]
		} else {
			path = ""
		}
		if dir == "" {
			dir = "."
		}
		switch e := execve(dir+"/"+name, argv, envp); e {
		case syscall.ENOENT, syscall.ENOTDIR:
		case syscall.EACCES:
			// Go on looking, as execvp(3) does.
			result = e
		default:
			report(ReportExec, e, dir+"/"+name, -1)
			exit(1)
		}
	}
	report(ReportExec, result, name, -1)
	exit(1)
}

// apparmor has the profile changed when the program is executed. The file is
// that of the thread, by way of the step's own /proc.
func (b *box) apparmor() {
	if b.c.AppArmor == "" {
		return
	}
	fd, e := openat(atFdcwd, "/proc/thread-self/attr/apparmor/exec", syscall.O_WRONLY, 0)
	if e != 0 { // before Linux 5.8
		fd, e = openat(atFdcwd, "/proc/thread-self/attr/exec", syscall.O_WRONLY, 0)
	}
	if e == 0 {
		e = writeAll(fd, []byte("exec "+b.c.AppArmor))
		closeFD(fd)
	}
	if e != 0 {
		fail(e, "AppArmor profile "+b.c.AppArmor+" (apparmor_parser -r FILE loads one, as root)")
	}
}

func execve(name string, argv, envp []*byte) syscall.Errno {
	p := cstr(name)
	_, e := call(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])))
	return e
}

// searchPath is the step's PATH, or what most images have.
func searchPath(env []string) string {
	for _, v := range env {
		if hasPrefix(v, "PATH=") && len(v) > len("PATH=") {
			return v[len("PATH="):]
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func vector(list []string) []*byte {
	v := make([]*byte, len(list)+1)
	for i, s := range list {
		v[i] = cstr(s)
	}
	return v
}

func indexByte(s string, c byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return i
		}
	}
	return -1
}

// resetSignals undoes what our parents ignored or blocked (a shell ignores
// SIGINT and SIGQUIT for its background jobs); handlers end with execve.
func resetSignals() {
	var action [64]byte // struct sigaction: SIG_DFL, no flags, empty mask
	for n := uintptr(1); n <= 64; n++ {
		call6(syscall.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	var mask uint64
	call6(syscall.SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

// hungUp reports whether the builder's side of the socket is closed.
func hungUp() bool {
	p := struct {
		fd              int32
		events, revents int16
	}{fd: socketFD}
	var timeout [2]int64
	n, e := call6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 8, 0)
	return e == 0 && n == 1 && p.revents&0x10 != 0 // POLLHUP
}
