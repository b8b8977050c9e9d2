package isolationtest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

// probePath is where a copy of the test binary lies in a step's root, for
// what busybox cannot do. Started under this name, it is the probe.
const probePath = "/isolationtest-probe"

func init() {
	if len(os.Args) == 2 && os.Args[0] == probePath {
		probes[os.Args[1]]()
		os.Exit(0)
	}
}

var probes = map[string]func(){"calls": probeCalls, "shm": probeShm, "terminal": probeInject}

// probe runs a probe as a step in a fresh root.
func (e *env) probe(name string, configure func(*isolation.Options)) result {
	e.Helper()
	root := NewRoot(e)
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		e.Fatal(err)
	}
	if f, err := elf.NewFile(bytes.NewReader(b)); err != nil || f.Section(".interp") != nil {
		e.Skip("the test binary is not static: build it with CGO_ENABLED=0")
	}
	if err := os.WriteFile(filepath.Join(root, probePath), b, 0o755); err != nil {
		e.Fatal(err)
	}
	o := e.options("")
	o.Args = []string{probePath, name}
	if configure != nil {
		configure(&o)
	}
	return e.runIn(e.Context(), root, o, nil)
}

// probeCalls makes system calls that a default step must not be able to make
// (CVE-2026-31431's family, CVE-2022-0492), and some that it must.
func probeCalls() {
	say := func(name string, errno syscall.Errno) {
		switch errno {
		case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EAFNOSUPPORT:
			fmt.Println(name, "denied")
		default:
			fmt.Println(name, "reached:", errno.Error())
		}
	}
	call := func(name string, nr, a, b, c uintptr) {
		_, _, errno := syscall.Syscall6(nr, a, b, c, 0, 0, 0)
		say(name, errno)
	}
	socket := func(name string, family, kind int) {
		fd, err := unix.Socket(family, kind, 0)
		if err == nil {
			unix.Close(fd)
			fmt.Println(name, "reached")
			return
		}
		errno, _ := err.(syscall.Errno)
		say(name, errno)
	}
	socket("AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET)
	socket("AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM)
	var params [256]byte
	call("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	call("keyctl", unix.SYS_KEYCTL, 0, 0, 0)
	call("add_key", unix.SYS_ADD_KEY, 0, 0, 0)
	call("bpf", unix.SYS_BPF, 0, 0, 0)
	call("userfaultfd", unix.SYS_USERFAULTFD, 0, 0, 0)
	call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, 0, 0, 0)
	call("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0)
	call("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS, 0, 0)
	call("setns", unix.SYS_SETNS, ^uintptr(0), 0, 0)
	call("mount", unix.SYS_MOUNT, 0, 0, 0)
	call("fsopen", unix.SYS_FSOPEN, 0, 0, 0)
	call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0), 0, 0)
	call("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, 0)
	call("init_module", unix.SYS_INIT_MODULE, 0, 0, 0)
	call("reboot", unix.SYS_REBOOT, 0, 0, 0)
	call("clone3", unix.SYS_CLONE3, 0, 0, 0)
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
		fmt.Println("AF_INET lacking:", err)
	} else {
		unix.Close(fd)
	}
}

// probeShm leaves shared memory behind (CVE-2024-3056).
func probeShm() {
	for range 50 {
		if _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); err != nil {
			fmt.Println(err)
		}
	}
}

// probeInject pushes input into its terminal (CVE-2016-2568's family): it
// must not have the caller's.
func probeInject() {
	c := byte('x')
	for fd := range 3 {
		if _, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c))); errno == 0 {
			fmt.Println("TIOCSTI worked on", fd)
		}
	}
	if b, err := os.ReadFile("/proc/self/stat"); err == nil {
		// Fields after the name: state, ppid, pgrp, session, tty_nr.
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 4 && f[4] != "0" {
			fmt.Println("controlling terminal", f[4])
		}
	}
}
