package early

import "syscall"

// makeStash makes a small file system that the step never sees: what is bound
// from it are the masks, the files and, when the step may call mknod(2), the
// devices. It hangs over the host's /proc in our namespace, since only an
// attached mount can be cloned before Linux 6.15, and goes with the host's
// mounts. Over "/" it would lie on the step's root, where "/etc/.." leads.
func (b *box) makeStash() {
	size := 64 << 10
	for _, f := range b.c.Files {
		size += len(f.Content) + 8192
	}
	var e syscall.Errno
	if b.stash, e = newFS("tmpfs", []string{"mode=0755", "size=" + itoa(size)}, attrNosuid|attrNoexec); e != 0 {
		fail(e, "make a tmpfs")
	}
	if e := moveMountHost(b.stash, "/proc"); e != 0 {
		fail(e, "attach a tmpfs")
	}
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

// mount does one mount.
func (b *box) mount(m *Mount) {
	what := "mount " + m.Target
	var fd int
	var e syscall.Errno
	switch m.Kind {
	case MountFS:
		fd, e = newFS(m.FSType, m.Options, m.Attr)
		if e != 0 && m.Flags&OrHost != 0 {
			fd, e = hostTree(m.Target, attrRdonly)
		}
		if e != 0 && m.FSType == "proc" && b.c.Flags&SharedPID != 0 {
			fd, e = b.proc, 0
		}
		if e != 0 && m.Flags&Optional != 0 {
			return
		}
		if e != 0 {
			fail(e, what+": make a "+m.FSType)
		}
	case MountTree:
		if int(m.FD) >= len(b.fds) || m.FD < FirstTreeFD {
			fail(syscall.EPROTO, what)
		}
		fd = b.fds[m.FD]
	default:
		fail(syscall.EPROTO, what)
	}
	target, e := b.target(m)
	if e != 0 && m.Flags&Optional != 0 {
		closeFD(fd)
		return
	}
	if e != 0 {
		fail(e, "mount point "+m.Target)
	}
	if e := moveMount(fd, target); e != 0 {
		fail(e, what)
	}
	closeFD(target)
	switch {
	case m.Flags&IsDev != 0:
		b.dev = fd
		b.devices()
		return
	case m.Flags&IsPts != 0:
		b.pts = fd
		return
	case m.Target == "/proc":
		_, b.procDev, e = stat(fd)
	case m.Target == "/sys":
		_, b.sysDev, e = stat(fd)
	}
	if e != 0 {
		fail(e, what)
	}
	closeFD(fd)
}

// hostTree is the host's mount at path with all below it; attr is 0 or
// attrRdonly.
func hostTree(path string, attr uint64) (int, syscall.Errno) {
	fd, e := openTree(atFdcwd, path, atRecursive)
	if e == 0 {
		e = setattr(fd, mountAttr{set: attr | attrNosuid | attrNodev | attrNoexec, propagation: msPrivate}, atRecursive)
	}
	return fd, e
}

// target resolves m's mount point inside the root.
func (b *box) target(m *Mount) (int, syscall.Errno) {
	if m.Flags&TargetKernel != 0 {
		// A link here is an attack or a broken root; nothing good could come
		// of following it (CVE-2019-19921, CVE-2026-41579).
		fd, e := openat2(b.root, m.Target, oPath|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, resolveInRoot|resolveNoSymlinks)
		if e == syscall.ELOOP || e == syscall.ENOTDIR {
			fail(e, "mount point "+m.Target+" must be a directory in the root, and no link")
		}
		return fd, e
	}
	fd, e := openat2(b.root, m.Target, oPath, resolveInRoot|resolveNoMagiclinks)
	if e == syscall.ENOENT && b.dev >= 0 && hasPrefix(m.Target, "/dev/") {
		b.makeInDev(m.Target[len("/dev/"):], m.Flags&IsDir != 0)
		fd, e = openat2(b.root, m.Target, oPath, resolveInRoot|resolveNoMagiclinks)
	}
	if e == 0 {
		b.refuseKernel(fd, "mount point "+m.Target, m.Target)
	}
	return fd, e
}

// refuseKernel fails when a mount point that a root's link chose lies in
// /proc or /sys: what is mounted there could redirect the writes that confine
// the step (CVE-2025-52881).
func (b *box) refuseKernel(fd int, what, target string) {
	_, dev, e := stat(fd)
	switch {
	case e != 0:
		fail(e, what)
	case dev == b.procDev:
		fail(syscall.EPERM, what+": lies in /proc")
	case dev == b.sysDev && !hasPrefix(target, "/sys/"):
		fail(syscall.EPERM, what+": lies in /sys")
	}
}

func hasPrefix(s, prefix string) bool { return len(s) >= len(prefix) && s[:len(prefix)] == prefix }

// makeInDev makes a mount point in the step's /dev, which is ours and fresh.
func (b *box) makeInDev(name string, dir bool) {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		if i < len(name) || dir {
			mkdirat(b.dev, name[:i], 0o755)
		} else if fd, e := openat(b.dev, name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o644); e == 0 {
			closeFD(fd)
		}
	}
}

// devices fills /dev as the runtime specification wants it ("Default Devices").
func (b *box) devices() {
	for _, d := range [...]struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		what := "make /dev/" + d.name
		if b.c.Devices == DevicesMake {
			e := mknodat(b.dev, d.name, syscall.S_IFCHR|0o666, d.major<<8|d.minor)
			if e == 0 {
				continue
			}
			if e != syscall.EPERM {
				fail(e, what)
			}
			b.c.Devices = DevicesBind // we lack CAP_MKNOD ourselves
		}
		var tree int
		var e syscall.Errno
		if b.c.Devices == DevicesBind {
			tree, e = openTree(atFdcwd, "/dev/"+d.name, 0)
		} else if e = mknodat(b.stash, d.name, syscall.S_IFCHR|0o666, d.major<<8|d.minor); e == 0 {
			tree, e = openTree(b.stash, d.name, 0)
		}
		if e != 0 {
			fail(e, what)
		}
		// The host's mount may be shared; ours must not be. The inode is the
		// host's, and root's of a container may be mapped to its owner:
		// read-only keeps mode and owner from the step, and says nothing about
		// writing to a device.
		attr := mountAttr{propagation: msPrivate}
		if b.c.Devices == DevicesBind {
			attr.set = attrRdonly | attrNosuid | attrNoexec
		}
		if e := setattr(tree, attr, 0); e != 0 {
			fail(e, what)
		}
		point, e := openat(b.dev, d.name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o666)
		if e == 0 {
			e = moveMount(tree, point)
		}
		if e != 0 {
			fail(e, what)
		}
		closeFD(point)
		closeFD(tree)
	}
	for _, l := range [...][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}} {
		if e := symlinkat(l[0], b.dev, l[1]); e != 0 {
			fail(e, "make /dev/"+l[1])
		}
	}
	for _, d := range [...]string{"pts", "shm", "mqueue"} {
		if e := mkdirat(b.dev, d, 0o755); e != 0 {
			fail(e, "make /dev/"+d)
		}
	}
}

// files covers the root's with the step's own.
func (b *box) files() {
	for i := range b.c.Files {
		f := &b.c.Files[i]
		what := "mount " + f.Target
		name := "file" + itoa(i)
		fd, e := openat(b.stash, name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o644)
		if e == 0 {
			e = writeAll(fd, f.Content)
		}
		if e != 0 {
			fail(e, what)
		}
		closeFD(fd)
		tree, e := openTree(b.stash, name, 0)
		if e != 0 {
			fail(e, what)
		}
		// Without following a link at its end: /etc/resolv.conf often is one,
		// to a place that does not exist, and is itself the mount point then.
		point, e := openat2(b.root, f.Target, oPath|syscall.O_NOFOLLOW, resolveInRoot|resolveNoMagiclinks)
		if e != 0 {
			fail(e, "mount point "+f.Target)
		}
		b.refuseKernel(point, "mount point "+f.Target, f.Target)
		if e := moveMount(tree, point); e != 0 {
			fail(e, what)
		}
		closeFD(point)
		closeFD(tree)
	}
}

// mask hides paths: a file below the step's null device, a directory below an
// empty one. What the path is, is looked at first: a bind mount that fails
// costs several milliseconds (an RCU grace period).
func (b *box) mask() {
	for _, p := range b.c.Masked {
		point, e := openat2(b.root, p, oPath|syscall.O_NOFOLLOW, resolveInRoot|resolveNoSymlinks)
		if e == syscall.ENOENT || e == syscall.ENOTDIR {
			continue
		}
		var mode uint16
		if e == 0 {
			mode, _, e = stat(point)
		}
		var tree int
		if e == 0 {
			if mode&syscall.S_IFMT == syscall.S_IFDIR {
				tree, e = b.emptyDir()
			} else {
				// Ours, by descriptor: the root's own /dev/null may be anything
				// (CVE-2025-31133).
				tree, e = openTree(b.dev, "null", 0)
			}
		}
		if e == 0 {
			e = moveMount(tree, point)
		}
		if e != 0 {
			fail(e, "mask "+p)
		}
		closeFD(point)
		closeFD(tree)
	}
	if b.maskDir >= 0 {
		closeFD(b.maskDir)
	}
}

// emptyDir returns another mount of an empty directory that cannot be
// written to.
func (b *box) emptyDir() (int, syscall.Errno) {
	if b.maskDir < 0 {
		if e := mkdirat(b.stash, "empty", 0o555); e != 0 {
			return -1, e
		}
		var e syscall.Errno
		if b.maskDir, e = openat(b.stash, "empty", oPath, 0); e != 0 {
			return -1, e
		}
	}
	tree, e := openTree(b.maskDir, "", 0)
	if e == 0 {
		e = setattr(tree, mountAttr{set: attrRdonly | attrNodev}, 0)
	}
	return tree, e
}

// readonly covers paths with themselves, read-only.
func (b *box) readonly() {
	for _, p := range b.c.Readonly {
		point, e := openat2(b.root, p, oPath|syscall.O_NOFOLLOW, resolveInRoot|resolveNoSymlinks)
		if e == syscall.ENOENT || e == syscall.ENOTDIR {
			continue
		}
		var tree int
		if e == 0 {
			tree, e = openTree(point, "", atRecursive)
		}
		if e == 0 {
			e = setattr(tree, mountAttr{set: attrRdonly | attrNosuid | attrNodev | attrNoexec}, atRecursive)
		}
		if e == 0 {
			e = moveMount(tree, point)
		}
		if e != 0 {
			fail(e, "make "+p+" read-only")
		}
		closeFD(point)
		closeFD(tree)
	}
}
