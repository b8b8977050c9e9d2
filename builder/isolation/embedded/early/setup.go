package early

import (
	"syscall"
	"unsafe"
)

// box is the container in the making.
type box struct {
	c   *Config
	fds []int

	root    int // the step's root, a detached mount at first
	dev     int // the step's /dev
	pts     int // its devpts
	stash   int // a file system of ours that the step does not reach
	maskDir int // an empty read-only directory
	slave   int // the step's side of its pty
	proc    int // the host's /proc, in case that no other can be made

	procDev, sysDev uint64 // device numbers of the file systems at /proc and /sys
}

// setup makes the container's namespaces what the step shall see.
func (b *box) setup() {
	c := b.c
	b.root = b.fds[RootFD]
	call(syscall.SYS_UMASK, 0, 0, 0)
	call(syscall.SYS_SETSID, 0, 0, 0)
	// Before the first mount, which would appear in the builder's namespace.
	root, none := cstr("/"), cstr("")
	if _, e := call6(syscall.SYS_MOUNT, uintptr(unsafe.Pointer(none)), uintptr(unsafe.Pointer(root)),
		uintptr(unsafe.Pointer(none)), syscall.MS_REC|syscall.MS_PRIVATE, 0, 0); e != 0 {
		fail(e, "make mounts private")
	}
	if c.Flags&Probe != 0 {
		b.probe()
	}
	b.namespaces()
	if c.Flags&LoopbackUp != 0 {
		loopbackUp()
	}
	if c.Hostname != "" {
		h := cstr(c.Hostname)
		if _, e := call(syscall.SYS_SETHOSTNAME, uintptr(unsafe.Pointer(h)), uintptr(len(c.Hostname)), 0); e != 0 {
			fail(e, "set hostname "+c.Hostname)
		}
	}
	if c.Flags&SharedPID != 0 {
		// Before the stash covers it.
		var e syscall.Errno
		if b.proc, e = hostTree("/proc", 0); e != 0 {
			fail(e, "clone the mount of /proc")
		}
	}
	if e := moveMountHost(b.root, "/"); e != 0 {
		fail(e, "attach the root")
	}
	b.makeStash()
	for i := range c.Mounts {
		b.mount(&c.Mounts[i])
	}
	b.files()
	b.mask()
	b.readonly()
	if c.Flags&Terminal != 0 {
		b.terminal()
	}
	b.stdio()
	b.pivot()
}

// namespaces joins those that are given, before anything is made in them.
func (b *box) namespaces() {
	for _, j := range b.c.Joins {
		if int(j.FD) >= len(b.fds) || j.FD < FirstTreeFD {
			fail(syscall.EPROTO, "join a namespace")
		}
		if _, e := call(sysSetns, uintptr(b.fds[j.FD]), uintptr(j.Type), 0); e != 0 {
			fail(e, "join a namespace")
		}
		closeFD(b.fds[j.FD])
	}
	if b.c.Flags&NewCgroup != 0 {
		if _, e := call(syscall.SYS_UNSHARE, cloneNewcgroup, 0, 0); e != 0 {
			fail(e, "make a cgroup namespace")
		}
	}
}

// probe tries what a host may forbid although it gave us the namespaces.
func (b *box) probe() {
	if _, e := newFS("tmpfs", nil, attrNosuid); e != 0 {
		fail(e, "make a tmpfs")
	}
	// Refused where the /proc around us has masks of its own.
	if b.c.Flags&SharedPID != 0 {
		if _, e := hostTree("/proc", 0); e != 0 {
			fail(e, "clone the mount of /proc")
		}
	} else if _, e := newFS("proc", nil, attrNosuid); e != 0 {
		fail(e, "make a /proc for a pid namespace")
	}
	report(ReportStart, 0, "", -1)
	exit(0)
}

// loopbackUp is "ip link set lo up".
func loopbackUp() {
	s, e := call(sysSocket, syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if e == syscall.EAFNOSUPPORT {
		s, e = call(sysSocket, syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	}
	if e != 0 {
		fail(e, "switch the loopback device on")
	}
	var request struct {
		name  [16]byte
		flags uint16
		rest  [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP
	if _, e := call(syscall.SYS_IOCTL, uintptr(s), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); e != 0 {
		fail(e, "switch the loopback device on")
	}
	closeFD(s)
}

// pivot makes the root the root, and drops the host's.
func (b *box) pivot() {
	if _, e := call(syscall.SYS_FCHDIR, uintptr(b.root), 0, 0); e != 0 {
		fail(e, "enter the root")
	}
	// pivot_root(".", ".") puts the old root on top of the new one, where
	// umount takes it away; no directory for it is needed (pivot_root(2)).
	dot := cstr(".")
	if _, e := call(syscall.SYS_PIVOT_ROOT, uintptr(unsafe.Pointer(dot)), uintptr(unsafe.Pointer(dot)), 0); e != 0 {
		fail(e, "pivot_root")
	}
	if _, e := call(syscall.SYS_UMOUNT2, uintptr(unsafe.Pointer(dot)), syscall.MNT_DETACH, 0); e != 0 {
		fail(e, "drop the host's root")
	}
	b.chdir("/")
}

// chdir enters a directory of the step's. Magic links are refused: one into
// /proc/self/fd could lead back to the host (CVE-2024-21626), and getcwd(2)
// is asked whether it did.
func (b *box) chdir(dir string) {
	what := "working directory " + dir
	fd, e := openat2(atFdcwd, dir, oPath|syscall.O_DIRECTORY, resolveNoMagiclinks)
	if e == syscall.ELOOP {
		fail(e, what+" leads through a link of /proc")
	}
	if e != 0 {
		fail(e, what)
	}
	if _, e := call(syscall.SYS_FCHDIR, uintptr(fd), 0, 0); e != 0 {
		fail(e, what)
	}
	closeFD(fd)
	var b4k [4096]byte
	if _, e := call(syscall.SYS_GETCWD, uintptr(unsafe.Pointer(&b4k[0])), uintptr(len(b4k)), 0); e != 0 || b4k[0] != '/' {
		fail(syscall.EPERM, what+" is outside the root")
	}
}

// terminal makes the step's pty and sends the other side away.
func (b *box) terminal() {
	if b.pts < 0 {
		fail(syscall.ENOENT, "pty: the step has no /dev/pts")
	}
	master, e := openat(b.pts, "ptmx", syscall.O_RDWR|syscall.O_NOCTTY, 0)
	if e != 0 {
		fail(e, "pty: open ptmx")
	}
	unlock := int32(0)
	if _, e := call(syscall.SYS_IOCTL, uintptr(master), syscall.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock))); e != 0 {
		fail(e, "pty: unlock")
	}
	// By descriptor (TIOCGPTPEER, 4.13): a name could be a link of the root's
	// (CVE-2025-52565).
	flags := syscall.O_RDWR | syscall.O_NOCTTY | syscall.O_CLOEXEC
	slave, e := call(syscall.SYS_IOCTL, uintptr(master), tiocgptpeer, uintptr(flags))
	if e != 0 {
		fail(e, "pty: open its other side")
	}
	if size := [4]uint16{uint16(b.c.Rows), uint16(b.c.Columns)}; size != [4]uint16{} {
		// A pty takes any size.
		call(syscall.SYS_IOCTL, uintptr(master), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))) // struct winsize
	}
	report(ReportPty, 0, "", master)
	closeFD(master)
	b.slave = slave
	if _, e := call(syscall.SYS_IOCTL, uintptr(slave), syscall.TIOCSCTTY, 0); e != 0 {
		fail(e, "pty: make it the controlling terminal")
	}
	call(sysFchown, uintptr(slave), uintptr(b.c.UID), ^uintptr(0))
}

// stdio puts the step's standard three in their places.
func (b *box) stdio() {
	for i, flag := range [...]uint32{HasStdin, HasStdout, HasStderr} {
		fd := b.fds[StdinFD+i]
		switch {
		case b.slave >= 0:
			fd = b.slave
		case b.c.Flags&flag == 0:
			// The step's own node: changing the mode of the host's through
			// /proc/self/fd would change it for everybody.
			var e syscall.Errno
			if fd, e = openat(b.dev, "null", syscall.O_RDWR, 0); e != 0 {
				fail(e, "open /dev/null")
			}
		default:
			b.giveAway(fd)
		}
		if _, e := call(syscall.SYS_DUP3, uintptr(fd), uintptr(i), 0); e != 0 {
			fail(e, "standard descriptors")
		}
	}
}

// giveAway makes a pipe the step's user's, who could not open /dev/stdout
// otherwise. Nothing else is touched: it may be a file of the host's.
func (b *box) giveAway(fd int) {
	if b.c.UID == 0 {
		return
	}
	if mode, _, e := stat(fd); e == 0 && mode&syscall.S_IFMT == syscall.S_IFIFO {
		call(sysFchown, uintptr(fd), uintptr(b.c.UID), ^uintptr(0))
	}
}
