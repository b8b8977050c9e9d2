package security

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMain makes this program one that a step can execute: it does what no
// program of the base image can.
func TestMain(m *testing.M) {
	switch os.Getenv("STRATA_SECURITY_PROBE") {
	case "":
		os.Exit(m.Run())
	case "calls":
		probeCalls()
	case "shm":
		probeShm()
	}
}

// stepAttacks are what a step may try against the host it runs on. CANARY
// stands for the canary's path.
func stepAttacks() []attack {
	const from = "FROM localhost/busybox\n"
	const capabilities = "RUN for c in Inh Amb; do grep -q \"Cap$c:.*0000000000000000\" /proc/self/status || echo KE''PT $c; done\n"
	const none = "RUN for c in Inh Amb Prm Eff; do grep -q \"Cap$c:.*0000000000000000\" /proc/self/status || echo KE''PT $c; done\n"
	const group = "RUN for g in $(id -g) WANT; do grep -qE \"^Groups:.*[[:space:]]$g( |$)\" /proc/self/status || echo MISS''ING $g; done\n"
	const accounts = "RUN echo somebody:x:1234:1234::/:/bin/sh >/etc/passwd; printf 'root:x:0:\\nsomebody:x:1234:\\nmore:x:77:somebody\\nother:x:78:nobody\\n' >/etc/group\n"
	all := buildAttacks([]build{
		{rows: "30,31", name: "descriptors", file: from + "RUN for n in 3 4 5 6 7 8 9 20 30; do { true <&$n; } 2>/dev/null && echo LEA''KED $n; done; true\n", never: "LEAKED"},
		{rows: "30,52", name: "variables of the builder", file: from + "RUN env; cat /proc/1/environ /proc/self/environ; env | cut -d= -f1 | grep -vE '^(PATH|HOME|HOSTNAME|PWD|SHLVL|TERM|container|LANG|OLDPWD|_)$' && echo LEA''KED; true\n", never: "LEAKED"},
		{rows: "31", name: "many descriptors as the working directory", file: from + "WORKDIR /\nRUN for n in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 20 30; do cd /proc/self/fd/$n 2>/dev/null && echo REA''CHED $n; cat /proc/self/fd/$n/../../../CANARY/file; done; true\n", never: "REACHED"},
		{rows: "32", name: "the programs of all processes", file: from + "RUN printf '#!/proc/self/exe --help\\n' >/x && chmod 755 /x; for e in /proc/[0-9]*/exe /proc/self/exe; do exec 9<$e; echo broken 2>/dev/null >$e; echo broken 2>/dev/null >/proc/self/fd/9; done; true\nRUN [\"/x\"]\n", fails: "*"},
		{rows: "32", name: "a library before the program", file: from + "ENV LD_PRELOAD=/evil.so LD_LIBRARY_PATH=/ GODEBUG=madvdontneed=1\nRUN echo evil >/evil.so; for e in /proc/[0-9]*/exe; do dd if=/evil.so of=$e conv=notrunc 2>/dev/null; done; true\n"},
		{rows: "33", name: "descriptors of other processes", file: from + "RUN for f in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do cat $f/file $f/../canary/file $f/CANARY/file $f/../../CANARY/file 2>/dev/null; echo broken 2>/dev/null >$f/CANARY/file; done; true\n"},
		{rows: "33", name: "processes of the host", file: from + "RUN for p in /proc/[0-9]*; do cat $p/environ; done; ls -d /proc/[0-9]* | wc -l | grep -qE '^[1-9]$' || echo SE''EN\n", never: "SEEN"},
		{rows: "46", name: "the groups of a number", file: from + "USER 1234\n" + strings.Replace(group, "WANT", "", 1), fails: "*", never: "MISSING"},
		{rows: "46", name: "the groups of a number and a group", file: from + "USER 1234:77\n" + strings.Replace(group, "WANT", "77", 1), fails: "*", never: "MISSING"},
		{rows: "46", name: "the groups of a name", file: from + accounts + "USER somebody\n" + strings.Replace(group, "WANT", "1234 77", 1) + "RUN grep -qE '^Groups:.*[[:space:]](78|0)( |$)' /proc/self/status && echo MO''RE; true\n", fails: "*", never: "MISSING"},
		{rows: "47", name: "inheritable capabilities", file: from + capabilities + "USER 1000\n" + capabilities, fails: "*", never: "KEPT"},
		{rows: "47", name: "inheritable capabilities, one added", args: []string{"--cap-add", "NET_ADMIN"}, file: from + capabilities + "USER 1000\n" + capabilities, fails: "*", never: "KEPT"},
		{rows: "47", name: "inheritable capabilities in the chroot isolation", args: []string{"--isolation", "chroot"}, file: from + capabilities + "USER 1000\n" + capabilities, fails: "*", never: "KEPT"},
		{rows: "48", name: "capabilities of a user", file: from + "USER 1000\n" + none, fails: "*", never: "KEPT"},
		{rows: "48", name: "capabilities of a user in the chroot isolation", args: []string{"--isolation", "chroot"}, file: from + "USER 1000\n" + none, fails: "*", never: "KEPT"},
		{rows: "48", name: "the filter is on", file: from + "RUN grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED\nUSER 1000\nRUN grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED\n", fails: "*", never: "UNCONFINED"},
		{rows: "49", name: "control groups", file: from + "RUN for f in $(find /sys/fs/cgroup -maxdepth 4 \\( -name cgroup.procs -o -name 'memory.*max' -o -name memory.limit_in_bytes -o -name release_agent \\) 2>/dev/null | head -200); do true 2>/dev/null >>$f && echo OPE''NED $f; done; " +
			"for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/strata-canary 2>/dev/null && echo OPE''NED $d; done; true 2>/dev/null >>/sys/kernel/uevent_helper && echo OPE''NED; true\n", never: "OPENED"},
		{rows: "50", name: "what the kernel tells", file: from + "RUN for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats /proc/interrupts; do test \"$(head -c1 $f 2>/dev/null | wc -c)\" = 0 || echo UN''MASKED $f; done; " +
			"for d in /sys/firmware /sys/devices/virtual/powercap /proc/acpi /proc/scsi; do test -z \"$(ls $d 2>/dev/null)\" || echo UN''MASKED $d; done; echo h 2>/dev/null >/proc/sysrq-trigger && echo UN''MASKED; true\n", never: "UNMASKED"},
		{rows: "50", name: "devices", file: from + "RUN for n in '0' '16' '32'; do mknod /d$n b 8 $n 2>/dev/null; mknod /v$n b 254 $n 2>/dev/null; done; mknod /m c 1 1; mknod /k c 1 11; for f in /d* /v* /m /k; do dd if=$f bs=1 count=1 2>/dev/null | wc -c | grep -q 1 && echo REA''D $f; done; true\n", never: "READ "},
		{rows: "58", name: "a hierarchy of control groups", file: from + "RUN mkdir /c; mount -t cgroup -o rdma cgroup /c 2>/dev/null && echo MOUN''TED; mount -t cgroup2 cgroup /c 2>/dev/null && echo MOUN''TED; " +
			"unshare -UrmC sh -c 'mount -t cgroup -o memory cgroup /c && echo MOUN''TED' 2>/dev/null; find / -xdev -name release_agent 2>/dev/null | while read f; do true 2>/dev/null >>$f && echo MOUN''TED; done; true\n", never: "MOUNTED"},
		{rows: "62", name: "a name of a container from elsewhere", file: "FROM localhost/busybox AS ..\nRUN true\n", fails: "*"},
	})
	return append(all,
		attack{[]int{51}, "more mounts than fit a message", manyMounts},
		attack{[]int{57, 58}, "system calls", systemCalls},
		attack{[]int{59}, "shared memory", sharedMemory})
}

// manyMounts: however much a step's process is told, it has namespaces of its
// own.
func manyMounts(p *place) {
	long := strings.Repeat("/"+strings.Repeat("n", 250), 14)
	files := map[string]string{}
	var mounts strings.Builder
	for i := range 40 {
		fmt.Fprintf(&mounts, "--mount=type=tmpfs,target=/m%d%s --mount=type=bind,source=f,target=/b%d%s/f ", i, long, i, long)
	}
	files["f"] = "x"
	show := "for n in mnt pid ipc uts cgroup net; do echo $n=$(readlink /proc/self/ns/$n); done"
	files["Containerfile"] = "FROM localhost/busybox\nENV BIG=" + strings.Repeat("e", 100000) + "\nRUN " + mounts.String() + show + "\n"
	_, stderr, code := p.run("", "build", "--no-cache", "--progress", "plain", p.context(files))
	if code != 0 {
		p.t.Logf("exit status %d: %s", code, firstLines(stderr[max(0, len(stderr)-500):]))
		return
	}
	for _, ns := range []string{"mnt", "pid", "ipc", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		p.must(err)
		if !strings.Contains(stderr, ns+"="+ns+":[") || strings.Contains(stderr, ns+"="+ours) {
			p.t.Errorf("the step's %s namespace is the host's, or none: %s", ns, firstLines(stderr[max(0, len(stderr)-500):]))
		}
	}
	p.check()
}

// probe runs this program as a step that does what its name says.
func (p *place) probe(what string, args ...string) (stderr string) {
	self, err := os.ReadFile("/proc/self/exe")
	p.must(err)
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN --mount=source=probe,target=/probe STRATA_SECURITY_PROBE=" + what + " STRATA_SECURITY_ARG=" + strings.Join(args, " ") + " /probe\n"})
	p.must(os.WriteFile(filepath.Join(dir, "probe"), self, 0o755))
	_, stderr, code := p.run("", "build", "--no-cache", "--progress", "plain", dir)
	if code != 0 || !strings.Contains(stderr, "probed") {
		p.t.Fatalf("exit status %d: %s", code, stderr)
	}
	return stderr
}

// systemCalls: those that have opened kernels from inside containers are not
// to be had, and ordinary sockets are.
func systemCalls(p *place) {
	stderr := p.probe("calls")
	if strings.Contains(stderr, "ALLOWED") || !strings.Contains(stderr, "socket AF_INET: errno 0") {
		p.t.Errorf("%s", stderr)
	}
	p.check()
}

// probeCalls says of each call whether the kernel took it. Arguments are such
// that nothing happens if it does.
func probeCalls() {
	runtime.LockOSThread()
	say := func(name string, denied bool, errno syscall.Errno) {
		word := ""
		// What is refused for its arguments was not refused for itself.
		if denied && errno != unix.EPERM && errno != unix.ENOSYS && errno != unix.EACCES && errno != unix.EAFNOSUPPORT {
			word = " ALLOWED"
		}
		fmt.Printf("%s: errno %d%s\n", name, int(errno), word)
	}
	call := func(name string, nr uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		say(name, true, errno)
	}
	for name, family := range map[string]int{"AF_ALG": unix.AF_ALG, "AF_VSOCK": unix.AF_VSOCK} {
		_, err := unix.Socket(family, unix.SOCK_SEQPACKET, 0)
		errno, _ := err.(syscall.Errno)
		say("socket "+name, true, errno)
	}
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	errno, _ := err.(syscall.Errno)
	say("socket AF_INET", false, errno)
	var params [256]byte
	call("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)))
	call("keyctl", unix.SYS_KEYCTL, 0, ^uintptr(2)) // KEYCTL_GET_KEYRING_ID of the session
	call("add_key", unix.SYS_ADD_KEY)
	call("bpf", unix.SYS_BPF, 0, 0, 0)
	call("userfaultfd", unix.SYS_USERFAULTFD, 0)
	call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&params)), 0, ^uintptr(0), ^uintptr(0), 0)
	call("unshare of a user namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	call("unshare of a mount namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	call("unshare of a cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	call("setns", unix.SYS_SETNS, ^uintptr(0), 0)
	call("mount", unix.SYS_MOUNT)
	call("open_tree", unix.SYS_OPEN_TREE, ^uintptr(0))
	call("fsopen", unix.SYS_FSOPEN)
	call("move_mount", unix.SYS_MOVE_MOUNT, ^uintptr(0))
	call("pivot_root", unix.SYS_PIVOT_ROOT)
	call("kexec_load", unix.SYS_KEXEC_LOAD)
	call("init_module", unix.SYS_INIT_MODULE)
	call("finit_module", unix.SYS_FINIT_MODULE, ^uintptr(0))
	call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0))
	call("swapon", unix.SYS_SWAPON)
	call("reboot", unix.SYS_REBOOT)
	call("quotactl", unix.SYS_QUOTACTL)
	call("acct", unix.SYS_ACCT)
	call("settimeofday", unix.SYS_SETTIMEOFDAY)
	fmt.Println("probed")
}

// sharedMemory: segments that a step leaves go with it.
func sharedMemory(p *place) {
	var random [4]byte
	copy(random[:], p.token)
	base := binary.NativeEndian.Uint32(random[:])&0x3fffffff | 0x40000000
	if stderr := p.probe("shm", strconv.Itoa(int(base))); !strings.Contains(stderr, "made 200") {
		p.t.Errorf("%s", stderr)
	}
	for i := range 200 {
		if id, _, errno := syscall.RawSyscall(unix.SYS_SHMGET, uintptr(base)+uintptr(i), 0, 0); errno == 0 {
			p.t.Errorf("segment %d of the step is the host's", id)
		}
	}
	p.check()
}

// probeShm makes segments of shared memory and leaves them.
func probeShm() {
	base, _ := strconv.Atoi(os.Getenv("STRATA_SECURITY_ARG"))
	made := 0
	for i := range 200 {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SHMGET, uintptr(base+i), 4096, unix.IPC_CREAT|0o666); errno == 0 {
			made++
		}
	}
	fmt.Printf("made %d\nprobed\n", made)
}
