package early

import (
	"syscall"
	"unsafe"
)

// System calls that syscall does not name. Since 5.1 every architecture
// numbers new calls alike.
const (
	sysOpenTree     = 428
	sysMoveMount    = 429
	sysFsopen       = 430
	sysFsconfig     = 431
	sysFsmount      = 432
	sysCloseRange   = 436
	sysOpenat2      = 437
	sysMountSetattr = 442
)

const (
	atFdcwd     = -100
	atEmptyPath = 0x1000
	atRecursive = 0x8000

	oPath = 0x200000

	resolveNoMagiclinks = 0x02
	resolveNoSymlinks   = 0x04
	resolveInRoot       = 0x10

	openTreeClone   = 1
	openTreeCloexec = syscall.O_CLOEXEC

	moveFromEmpty = 0x04
	moveToEmpty   = 0x40

	fsconfigFlag   = 0
	fsconfigString = 1
	fsconfigCreate = 6

	attrRdonly = 0x01
	attrNosuid = 0x02
	attrNodev  = 0x04
	attrNoexec = 0x08

	msPrivate = 1 << 18

	cloneNewcgroup = 0x02000000

	closeRangeCloexec = 4
)

// openHow is struct open_how.
type openHow struct{ flags, mode, resolve uint64 }

// mountAttr is struct mount_attr.
type mountAttr struct{ set, clear, propagation, usernsFD uint64 }

func call(nr, a, b, c uintptr) (int, syscall.Errno) {
	r, _, e := syscall.RawSyscall(nr, a, b, c)
	return int(r), e
}

func call6(nr, a, b, c, d, e, f uintptr) (int, syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(nr, a, b, c, d, e, f)
	return int(r), errno
}

// cstr returns s with a zero byte at its end. Config strings hold none
// before it: NewSpec refuses them, and one that got here would only cut the
// name short.
func cstr(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}

func closeFD(fd int) { call(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// openat2 repeats lookups that a concurrent rename disturbed (EAGAIN).
func openat2(dir int, name string, flags, resolve uint64) (int, syscall.Errno) {
	how := openHow{flags: flags | syscall.O_CLOEXEC, resolve: resolve}
	p := cstr(name)
	for try := 0; ; try++ {
		fd, e := call6(sysOpenat2, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		if e != syscall.EAGAIN && e != syscall.EINTR || try == 100 {
			return fd, e
		}
	}
}

func openat(dir int, name string, flags int, mode uint32) (int, syscall.Errno) {
	p := cstr(name)
	return call6(syscall.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags|syscall.O_CLOEXEC), uintptr(mode), 0, 0)
}

func mkdirat(dir int, name string, mode uint32) syscall.Errno {
	p := cstr(name)
	_, e := call(syscall.SYS_MKDIRAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(mode))
	return e
}

func mknodat(dir int, name string, mode uint32, dev uint32) syscall.Errno {
	p := cstr(name)
	_, e := call6(syscall.SYS_MKNODAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(mode), uintptr(dev), 0, 0)
	return e
}

func symlinkat(target string, dir int, name string) syscall.Errno {
	t, p := cstr(target), cstr(name)
	_, e := call(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(t)), uintptr(dir), uintptr(unsafe.Pointer(p)))
	return e
}

// openTree clones the mount that name below dir lies on, as a detached one;
// an empty name is dir itself.
func openTree(dir int, name string, flags int) (int, syscall.Errno) {
	if name == "" {
		flags |= atEmptyPath
	}
	p := cstr(name)
	return call(sysOpenTree, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags|openTreeClone|openTreeCloexec))
}

// moveMount attaches the detached mount from on to.
func moveMount(from, to int) syscall.Errno {
	p := cstr("")
	_, e := call6(sysMoveMount, uintptr(from), uintptr(unsafe.Pointer(p)), uintptr(to), uintptr(unsafe.Pointer(p)), moveFromEmpty|moveToEmpty, 0)
	return e
}

// moveMountHost attaches from on a path of the host's.
func moveMountHost(from int, to string) syscall.Errno {
	p, q := cstr(""), cstr(to)
	dir := atFdcwd
	_, e := call6(sysMoveMount, uintptr(from), uintptr(unsafe.Pointer(p)), uintptr(dir), uintptr(unsafe.Pointer(q)), moveFromEmpty, 0)
	return e
}

// setattr changes a mount, and those below it when flags has atRecursive.
func setattr(fd int, attr mountAttr, flags int) syscall.Errno {
	p := cstr("")
	_, e := call6(sysMountSetattr, uintptr(fd), uintptr(unsafe.Pointer(p)), uintptr(flags|atEmptyPath),
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	return e
}

// newFS makes a file system and returns it as a detached mount.
func newFS(fstype string, options []string, attr uint64) (int, syscall.Errno) {
	t := cstr(fstype)
	fs, e := call(sysFsopen, uintptr(unsafe.Pointer(t)), 1, 0)
	if e != 0 {
		return -1, e
	}
	defer closeFD(fs)
	for _, o := range options {
		key, value, kind := o, "", uintptr(fsconfigFlag)
		for i := 0; i < len(o); i++ {
			if o[i] == '=' {
				key, value, kind = o[:i], o[i+1:], fsconfigString
				break
			}
		}
		k := cstr(key)
		var v *byte
		if kind == fsconfigString {
			v = cstr(value)
		}
		if _, e := call6(sysFsconfig, uintptr(fs), kind, uintptr(unsafe.Pointer(k)), uintptr(unsafe.Pointer(v)), 0, 0); e != 0 {
			return -1, e
		}
	}
	if _, e := call6(sysFsconfig, uintptr(fs), fsconfigCreate, 0, 0, 0, 0); e != 0 {
		return -1, e
	}
	return call(sysFsmount, uintptr(fs), 1, uintptr(attr))
}

// stat returns an object's type and mode, and the device of its file system.
// statx(2) is the one call of its kind that every architecture has.
func stat(fd int) (mode uint16, dev uint64, e syscall.Errno) {
	var st struct {
		_        [28]byte
		mode     uint16
		_        [106]byte
		devMajor uint32
		devMinor uint32
		_        [112]byte
	}
	p := cstr("")
	_, e = call6(sysStatx, uintptr(fd), uintptr(unsafe.Pointer(p)), atEmptyPath, 3 /* STATX_TYPE|STATX_MODE */, uintptr(unsafe.Pointer(&st)), 0)
	return st.mode, uint64(st.devMajor)<<32 | uint64(st.devMinor), e
}

// writeAll writes b.
func writeAll(fd int, b []byte) syscall.Errno {
	for len(b) > 0 {
		n, e := call(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		b = b[n:]
	}
	return 0
}

func prctl(op, a, b uintptr) syscall.Errno {
	_, e := call6(syscall.SYS_PRCTL, op, a, b, 0, 0, 0)
	return e
}
