package isolationtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

var optionCases = []testCase{
	{name: "the root's own hosts and hostname", run: func(e *env) {
		root := NewRoot(e)
		write(e, filepath.Join(root, "etc/hosts"), "192.0.2.3 mine\n", 0o644)
		write(e, filepath.Join(root, "etc/hostname"), "theirs\n", 0o644)
		o := e.options("cat /etc/hosts /etc/hostname")
		o.NoHosts, o.NoHostname = true, true
		e.equal("files", e.must(e.runIn(e.Context(), root, o, nil)), "192.0.2.3 mine\ntheirs")
	}},
	{name: "shared namespaces", run: func(e *env) {
		o := e.options("for n in ipc uts cgroup; do echo $n $(readlink /proc/self/ns/$n); done; hostname")
		o.Namespaces = isolation.Namespaces{IPC: "host", UTS: "host", Cgroup: "host"}
		lines := strings.Split(strings.TrimSpace(e.must(e.run(o))), "\n")
		name, err := os.Hostname()
		if err != nil || len(lines) != 4 || lines[3] != name {
			e.Fatalf("got %q, want the host's name %s (%v)", lines, name, err)
		}
		for _, line := range lines[:3] {
			f := strings.Fields(line)
			e.equal(f[0], f[1], readLink(e, "/proc/self/ns/"+f[0]))
		}
	}},
	{name: "a shared pid namespace", needs: []Feature{SharedPID}, run: func(e *env) {
		o := e.options("readlink /proc/self/ns/pid; sleep 1000 & sleep 1000 &")
		o.Namespaces.PID = "host"
		// That nothing outlives the step is seen by its output being closed.
		e.equal("pid", e.must(e.run(o)), readLink(e, "/proc/self/ns/pid"))
	}},
	{name: "joined namespaces", needs: []Feature{JoinedNamespaces}, run: func(e *env) {
		pid := sleeper(e, syscall.CLONE_NEWIPC|syscall.CLONE_NEWNET)
		ipc, net := fmt.Sprintf("/proc/%d/ns/ipc", pid), fmt.Sprintf("/proc/%d/ns/net", pid)
		o := e.options("readlink /proc/self/ns/ipc; readlink /proc/self/ns/net")
		o.Network = isolation.NetworkNone
		o.Namespaces.IPC = isolation.NamespaceMode(ipc)
		spec, err := isolation.NewSpec(o)
		if err != nil {
			e.Fatal(err)
		}
		f, err := os.Open(net)
		if err != nil {
			e.Fatal(err)
		}
		defer f.Close()
		spec.Joined = isolation.Joined{specs.NetworkNamespace: f}
		for range 2 { // the descriptor stays ours
			out := e.must(e.runSpec(e.Context(), OpenRoot(e, NewRoot(e)), spec, nil))
			e.equal("namespaces", out, readLink(e, ipc)+"\n"+readLink(e, net))
		}
	}},
	{name: "devices", needs: []Feature{Volumes, KernelMounts}, run: func(e *env) {
		before := fileID(e, "/dev/zero")
		o := e.options("head -c 3 /dev/sub/z | wc -c; echo x >/dev/sub/z && echo written; chmod 600 /dev/sub/z 2>/dev/null; head -c1 /etc/dev/zero | wc -c")
		o.Devices = []isolation.Device{{Source: "/dev/zero", Target: "/dev/sub/z"}, {Source: "/dev", Target: "/etc/dev", Permissions: "rwm"}}
		e.equal("output", e.must(e.run(o)), "3\nwritten\n1")
		e.equal("the host's node", fileID(e, "/dev/zero"), before)
	}},
	{name: "masked and unmasked as asked", needs: []Feature{KernelMounts}, run: func(e *env) {
		o := e.options("wc -c </etc/passwd; ls /work | wc -l; grep -c ' /proc/' /proc/self/mountinfo")
		o.Mask, o.Unmask = []string{"/etc/passwd", "/work", "/nowhere"}, []string{"ALL"}
		root := NewRoot(e)
		write(e, filepath.Join(root, "work/f"), "", 0o644)
		out := e.runIn(e.Context(), root, o, nil).out
		e.equal("output", strings.Join(strings.Fields(out)[:2], " "), "0 0")
		if f := strings.Fields(out); f[2] != "0" && !hostMasks(e) {
			e.Errorf("%s mounts below /proc", f[2])
		}
		o = e.options("grep -c ' /proc/sys ' /proc/self/mountinfo; grep -c ' /proc/bus ' /proc/self/mountinfo")
		o.Unmask = []string{"/proc/s*"}
		want := "0\n1"
		if !exists("/proc/bus") {
			want = "0\n0"
		}
		e.equal("output", e.run(o).out, want)
	}},
	{name: "another seccomp profile", needs: []Feature{Seccomp}, run: func(e *env) {
		o := e.options("mkdir /x 2>/dev/null || echo denied; grep -w Seccomp: /proc/self/status | tr -dc 0-9")
		o.SeccompProfile = []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
			"syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`)
		e.equal("output", e.must(e.run(o)), "denied\n2")
	}},
	{name: "groups of the caller are kept as asked", run: func(e *env) {
		if slices.Contains(e.s.Lacks, KeptGroups) {
			e.Skip("cannot")
		}
		o := e.options("grep Groups /proc/self/status | cut -d: -f2")
		o.KeepGroups = true
		e.equal("groups", strings.Join(strings.Fields(e.must(e.run(o))), " "), strings.Join(strings.Fields(ownStatus(e, "Groups:")), " "))
	}},
	{name: "out of memory", needs: []Feature{Limits}, run: func(e *env) {
		// The last line of /dev/zero never ends, and tail keeps it.
		o := e.options("tail /dev/zero >/dev/null; exit $?")
		o.Limits = isolation.Limits{Memory: 64 << 20}
		r := e.limited(o)
		var exit *isolation.ExitError
		if !errors.As(r.err, &exit) || exit.Code != 137 {
			e.Fatalf("ended with %v, want 137", r.err)
		}
		e.contains(exit.Reason, "out of memory: limit 64 MiB")
	}},
	{name: "limit of processes", needs: []Feature{Limits}, run: func(e *env) {
		o := e.options("sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & echo all")
		o.Limits = isolation.Limits{PIDs: 8}
		if r := e.limited(o); r.err == nil || strings.Contains(r.out, "all") {
			e.Errorf("12 processes ran with a limit of 8: %q", r.out)
		}
		o.Limits.PIDs = 20
		e.equal("with enough", e.must(e.limited(o)), "all")
	}},
	{name: "limits of CPU", needs: []Feature{Limits}, run: func(e *env) {
		o := e.options("grep Cpus_allowed_list /proc/self/status | tr -dc 0-9; for f in /proc/self/cgroup; do grep -c strata $f; done")
		o.Limits = isolation.Limits{CPUSetCPUs: "0", CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000}
		out := e.limited(o).out
		if want := "00"; !slices.Contains(e.s.Lacks, CgroupNamespace) {
			e.equal("CPUs, and what the step sees of its group", out, want)
		}
		e.noGroups()
	}},
}

// hostMasks reports that parts of this process's own /proc are hidden, which
// a step that is shown it cannot undo.
func hostMasks(e *env) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		e.Fatal(err)
	}
	return strings.Contains(string(b), " /proc/")
}

// limited runs a step with limits, or skips where this place allows none.
func (e *env) limited(o isolation.Options) result {
	e.Helper()
	r := e.run(o)
	if errors.Is(r.err, define.ErrUnsupported) {
		e.Skip(r.err)
	}
	return r
}

// noGroups checks that no control group of this process's steps is left.
func (e *env) noGroups() {
	e.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/strata-step-*", "/sys/fs/cgroup/*/strata-step-*"} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			e.Fatal(err)
		}
		for _, dir := range left {
			f, err := os.Open(dir)
			if err != nil {
				continue // somebody else's, gone
			}
			// Those of others that run meanwhile are locked.
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				e.Errorf("%s is left", dir)
			}
			f.Close()
		}
	}
}

// sleeper starts a process in new namespaces that lives as long as the test,
// and returns its number.
func sleeper(e *env, flags uintptr) int {
	e.Helper()
	c := exec.Command("sleep", "300")
	// Without a parent death signal: it would come when a thread of ours ends.
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := c.Start(); err != nil {
		e.Skipf("namespaces: %v", err)
	}
	e.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c.Process.Pid
}
