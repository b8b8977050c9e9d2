package seccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inside makes this test binary load the default filter and try calls.
const inside = "STRATA_SECCOMP_TEST_LIVE"

// TestLive has the kernel judge: a child loads the filter of an ordinary step
// and reports the errno of calls.
func TestLive(t *testing.T) {
	if os.Getenv(inside) != "" {
		live()
		os.Exit(0)
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestLive$")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = result
	}
	if got["load"] != "ok" {
		t.Skipf("the filter cannot be loaded here: %s", got["load"])
	}
	for name, want := range map[string]string{
		"getpid": "ok", "unshare": "EPERM", "mount": "EPERM", "keyctl": "EPERM", "add_key": "EPERM", "bpf": "EPERM",
		"perf_event_open": "EPERM", "userfaultfd": "EPERM", "io_uring_setup": "EPERM", "open_by_handle_at": "EPERM",
		"reboot": "EPERM", "setns": "EPERM", "clone_newuser": "EPERM", "socket_alg": "EPERM", "socket_vsock": "EPERM",
		"socket_inet": "ok", "socket_unix": "ok", "clone3": "ENOSYS", "beyond": "ENOSYS", "far_beyond": "ENOSYS",
		"personality": "ok", "kexec_load": "EPERM", "x32": "ENOSYS",
	} {
		if name == "x32" && runtime.GOARCH != "amd64" {
			continue
		}
		if got[name] != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
}

// live tries calls with arguments that do no harm where they are let through.
func live() {
	say := func(name string, err error) {
		var e syscall.Errno
		switch {
		case err == nil:
			fmt.Println(name, "ok")
		case errors.As(err, &e):
			fmt.Println(name, unix.ErrnoName(e))
		default:
			fmt.Println(name, err)
		}
	}
	runtime.LockOSThread()
	p, err := Default(stepCaps)
	if err != nil {
		say("load", err)
		return
	}
	prog, err := Compile(p)
	if err != nil {
		say("load", err)
		return
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		say("load", err)
		return
	}
	fprog := unix.SockFprog{Len: uint16(len(prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	try := func(name string, nr uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			say(name, errno)
			return
		}
		say(name, nil)
	}
	try("load", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	const bad = ^uintptr(0)
	try("getpid", unix.SYS_GETPID)
	try("unshare", unix.SYS_UNSHARE, 0)
	try("mount", unix.SYS_MOUNT)
	try("keyctl", unix.SYS_KEYCTL, bad)
	try("add_key", unix.SYS_ADD_KEY)
	try("bpf", unix.SYS_BPF, bad)
	try("perf_event_open", unix.SYS_PERF_EVENT_OPEN)
	try("userfaultfd", unix.SYS_USERFAULTFD, bad)
	try("io_uring_setup", unix.SYS_IO_URING_SETUP, 0, 0)
	try("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, bad)
	try("reboot", unix.SYS_REBOOT)
	try("setns", unix.SYS_SETNS, bad)
	try("kexec_load", unix.SYS_KEXEC_LOAD, 0, bad)
	// An invalid combination of flags, should it come through.
	try("clone_newuser", unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS)
	try("socket_alg", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	try("socket_vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	try("socket_inet", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	try("socket_unix", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("clone3", unix.SYS_CLONE3)
	try("beyond", 471)
	try("far_beyond", 900)
	try("personality", unix.SYS_PERSONALITY, 0xffffffff)
	try("x32", x32Bit|39)
}
