package early

import (
	"syscall"
	"unsafe"
)

// socketFD is where an init has its socket.
const socketFD = 3

func init() {
	if isInit() {
		run()
	}
}

// isInit tells an init from every other start of the program. Nearly always
// the first call answers: descriptor 3 is closed.
func isInit() bool {
	for _, want := range [...][2]int32{{syscall.SO_TYPE, syscall.SOCK_STREAM}, {39 /* SO_DOMAIN */, syscall.AF_UNIX}} {
		value, size := int32(0), uint32(4)
		_, e := call6(sysGetsockopt, socketFD, syscall.SOL_SOCKET, uintptr(want[0]),
			uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 || value != want[1] {
			return false
		}
	}
	fd, e := openat(atFdcwd, "/proc/self/cmdline", syscall.O_RDONLY, 0)
	if e != 0 {
		return false
	}
	var b [len(Name) + 2]byte
	n, e := call(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	closeFD(fd)
	return e == 0 && n == len(Name)+1 && string(b[:len(Name)]) == Name && b[len(Name)] == 0
}

// run never returns.
func run() {
	// Descriptors that a parent of our parent left open, before anything that
	// matters is opened: none may reach the step (CVE-2024-21626).
	call(sysCloseRange, socketFD+1, ^uintptr(0), 0)
	c, fds := receive()
	if c == nil {
		// The builder has gone, or has no step for us: nobody to tell.
		exit(0)
	}
	b := &box{c: c, fds: fds, dev: -1, pts: -1, stash: -1, maskDir: -1, slave: -1}
	b.setup()
	b.become()
	b.exec()
}

func exit(code int) {
	for {
		call(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
	}
}

// report tells the builder something; text names the object and the action.
func report(kind byte, e syscall.Errno, text string, fd int) {
	w := writer(append(make([]byte, 0, ReportSize+len(text)), kind))
	w.u32(uint32(e))
	w.str(text)
	if fd < 0 {
		writeAll(socketFD, w)
		return
	}
	var control [cmsgSpace4]byte
	h := (*syscall.Cmsghdr)(unsafe.Pointer(&control[0]))
	h.Level, h.Type = syscall.SOL_SOCKET, syscall.SCM_RIGHTS
	h.SetLen(syscall.SizeofCmsghdr + 4)
	*(*int32)(unsafe.Pointer(&control[syscall.SizeofCmsghdr])) = int32(fd)
	iov := syscall.Iovec{Base: &w[0]}
	iov.SetLen(len(w))
	msg := syscall.Msghdr{Iov: &iov, Iovlen: 1, Control: &control[0]}
	msg.SetControllen(len(control))
	syscall.RawSyscall(sysSendmsg, socketFD, uintptr(unsafe.Pointer(&msg)), syscall.MSG_NOSIGNAL)
}

// cmsgSpace4 is CMSG_SPACE(4) with the alignment of all of our 64-bit
// architectures, and no less than that of the others.
const cmsgSpace4 = syscall.SizeofCmsghdr + 8

// fail ends the init: the container could not be made.
func fail(e syscall.Errno, text string) {
	report(ReportSetup, e, text, -1)
	exit(1)
}

// receive reads a config and its descriptors. It returns nil when the socket
// ends before one comes.
func receive() (*Config, []int) {
	var head [HeaderSize]byte
	fds := make([]int, 0, 16)
	for at := 0; at < HeaderSize; {
		n, ok := recvmsg(head[at:], &fds)
		if !ok {
			return nil, nil
		}
		at += n
	}
	r := &reader{b: head[:]}
	magic, size, count := r.u64(), r.u64(), int(r.u32())
	if magic != Magic || size > maxConfig {
		return nil, nil
	}
	for len(fds) < count {
		var one [1]byte
		before := len(fds)
		if _, ok := recvmsg(one[:], &fds); !ok || len(fds) == before {
			fail(syscall.EPROTO, "receive descriptors")
		}
	}
	body := make([]byte, size)
	for at := 0; at < len(body); {
		n, e := read(socketFD, body[at:])
		if e != 0 || n == 0 {
			return nil, nil
		}
		at += n
	}
	c, ok := Decode(body)
	if !ok || count < FirstTreeFD {
		fail(syscall.EPROTO, "decode the configuration")
	}
	return c, fds
}

func read(fd int, b []byte) (int, syscall.Errno) {
	for {
		// Not raw: this may wait long, in an init that was started ahead.
		n, _, e := syscall.Syscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func recvmsg(b []byte, fds *[]int) (int, bool) {
	control := make([]byte, syscall.SizeofCmsghdr+4*BatchSize+8)
	iov := syscall.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := syscall.Msghdr{Iov: &iov, Iovlen: 1, Control: &control[0]}
	msg.SetControllen(len(control))
	var n uintptr
	for {
		var e syscall.Errno
		n, _, e = syscall.Syscall(sysRecvmsg, socketFD, uintptr(unsafe.Pointer(&msg)), 0x40000000 /* MSG_CMSG_CLOEXEC */)
		if e == syscall.EINTR {
			continue
		}
		if e != 0 || n == 0 {
			return 0, false
		}
		break
	}
	if uint64(msg.Controllen) >= syscall.SizeofCmsghdr {
		h := (*syscall.Cmsghdr)(unsafe.Pointer(&control[0]))
		if h.Level == syscall.SOL_SOCKET && h.Type == syscall.SCM_RIGHTS {
			for at := syscall.SizeofCmsghdr; at+4 <= int(h.Len); at += 4 {
				*fds = append(*fds, int(*(*int32)(unsafe.Pointer(&control[at]))))
			}
		}
	}
	return int(n), true
}
