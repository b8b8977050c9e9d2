package isolationtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

var mountCases = []testCase{
	{name: "devices", run: func(e *env) {
		out := e.sh("for n in null zero full random urandom tty; do stat -c '%n %F' /dev/$n; done; " +
			"echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c")
		e.equal("devices", out, strings.Join([]string{
			"/dev/null character special file", "/dev/zero character special file", "/dev/full character special file",
			"/dev/random character special file", "/dev/urandom character special file", "/dev/tty character special file",
			"3", "5"}, "\n"))
	}},
	{name: "device links", needs: []Feature{KernelMounts}, run: func(e *env) {
		e.equal("links", e.sh("for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done"),
			"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx")
	}},
	{name: "own proc", needs: []Feature{PIDNamespace}, run: func(e *env) {
		e.equal("process 1", e.sh("tr '\\0' ' ' </proc/1/cmdline | cut -c1-10"), "/bin/sh -c")
	}},
	{name: "sys is read-only", needs: []Feature{KernelMounts}, run: func(e *env) {
		if e.code(e.run(e.options("ls /sys/kernel >/dev/null && ! touch /sys/x 2>/dev/null && ! echo 1 2>/dev/null >/sys/kernel/profiling"))) != 0 {
			e.Error("/sys is missing or writable")
		}
		for line := range strings.Lines(e.sh("grep ' /sys' /proc/self/mountinfo")) {
			if f := strings.Fields(line); len(f) > 5 && !strings.HasPrefix(f[5], "ro") {
				e.Errorf("writable below /sys: %s", line)
			}
		}
	}},
	{name: "shm", needs: []Feature{KernelMounts}, run: func(e *env) {
		o := e.options("df -k /dev/shm | tail -1 | awk '{print $2}'; stat -c %a /dev/shm")
		e.equal("default", e.must(e.run(o)), "65536\n1777")
		o.ShmSize = 1 << 20
		e.equal("asked", e.must(e.run(o)), "1024\n1777")
	}},
	{name: "masked paths", needs: []Feature{KernelMounts}, run: func(e *env) { e.masked("") }},
	{name: "read-only paths of proc", needs: []Feature{KernelMounts}, run: func(e *env) {
		if e.code(e.run(e.options("(echo x >/proc/sys/kernel/core_pattern) 2>/dev/null || (echo x >/proc/sysrq-trigger) 2>/dev/null"))) == 0 {
			e.Error("could be written")
		}
	}},
	{name: "hosts and resolv.conf", run: func(e *env) {
		o := e.options("cat /etc/hosts /etc/resolv.conf; echo 1.2.3.4 more >>/etc/hosts")
		o.Hosts = []string{"db:10.0.0.7"}
		o.DNS, o.DNSSearch, o.DNSOptions = []string{"192.0.2.1"}, []string{"example.org"}, []string{"ndots:2"}
		root := NewRoot(e)
		out := e.must(e.runIn(e.Context(), root, o, nil))
		e.contains(out, "10.0.0.7\tdb", "127.0.0.1\tlocalhost", "nameserver 192.0.2.1", "search example.org", "options ndots:2")
		for _, f := range []string{"hosts", "hostname", "resolv.conf"} {
			if b, err := os.ReadFile(filepath.Join(root, "etc", f)); err != nil || len(b) != 0 {
				e.Errorf("%s of the root was written: %q %v", f, b, err)
			}
		}
	}},
	{name: "network none", needs: []Feature{NetworkNone}, run: func(e *env) {
		o := e.options("ip -o link | awk '{print $2}'; ip -o addr show lo | grep -c 127.0.0.1")
		o.Network = isolation.NetworkNone
		e.equal("devices", e.must(e.run(o)), "lo:\n1")
	}},
	{name: "volumes", needs: []Feature{Volumes}, run: func(e *env) {
		dir := e.TempDir()
		write(e, filepath.Join(dir, "f"), "content", 0o644)
		o := e.options("cat /vol/f; echo new >/vol/g; cat /file; ! echo x 2>/dev/null >/ro/h && echo kept; ls /a/b")
		o.Volumes = []isolation.Volume{
			{Source: dir, Target: "/a/b", ReadOnly: true},
			{Source: dir, Target: "/vol"},
			{Source: dir, Target: "/ro", Options: []string{"ro"}},
			{Source: filepath.Join(dir, "f"), Target: "/file"},
		}
		e.equal("output", e.must(e.run(o)), "contentcontentkept\nf\ng")
		if b, _ := os.ReadFile(filepath.Join(dir, "g")); string(b) != "new\n" {
			e.Errorf("volume was not written: %q", b)
		}
	}},
	{name: "many volumes", needs: []Feature{Volumes}, run: func(e *env) {
		// CVE-2021-43784: a long set-up message must not lose anything.
		dir := e.TempDir()
		for range 16 {
			dir = filepath.Join(dir, strings.Repeat("d", 200))
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			e.Fatal(err)
		}
		write(e, filepath.Join(dir, "f"), "content", 0o644)
		o := e.options("ls /v/*/f | wc -l; hostname")
		o.Hostname = "kept"
		for i := range 300 {
			o.Volumes = append(o.Volumes, isolation.Volume{Source: dir, Target: fmt.Sprintf("/v/%d", i)})
		}
		lines := strings.Fields(e.must(e.run(o)))
		if len(lines) != 2 || lines[0] != "300" || lines[1] != "kept" && !slices.Contains(e.s.Lacks, UTSNamespace) {
			e.Errorf("got %q, want 300 files and the hostname", lines)
		}
	}},
	{name: "volume in /proc by a link of the root", needs: []Feature{Volumes, KernelMounts}, run: func(e *env) {
		// CVE-2025-52881: nothing may be mounted over what confines the step.
		root := NewRoot(e)
		link(e, "/proc/self/attr", filepath.Join(root, "lnk"))
		o := e.options("true")
		o.Volumes = []isolation.Volume{{Source: e.TempDir(), Target: "/lnk"}}
		if r := e.runIn(e.Context(), root, o, nil); r.err == nil {
			e.Error("the volume was mounted in /proc")
		}
	}},
	{name: "mknod gives no way to the host's devices", needs: []Feature{Nodev}, run: func(e *env) {
		// GHSA-g54h-m393-cpwq: there must be no device that a list forgot.
		o := e.options("for d in / /dev /dev/shm /tmp; do mknod $d/z c 1 5 2>/dev/null && head -c1 $d/z >/dev/null 2>&1 && echo $d/z opened; done; " +
			"head -c1 /dev/zero | wc -c; chmod 600 /dev/null; echo x >/dev/null && echo ok")
		before, _ := os.Stat("/dev/null")
		e.equal("output", e.must(e.run(o)), "1\nok")
		o.CapAdd = []string{"MKNOD"}
		e.equal("output with CAP_MKNOD", e.must(e.run(o)), "1\nok")
		if after, _ := os.Stat("/dev/null"); after.Mode() != before.Mode() {
			e.Errorf("/dev/null of the host has mode %v", after.Mode())
		}
	}},
	{name: "volume below /dev", needs: []Feature{Volumes, KernelMounts}, run: func(e *env) {
		dir := e.TempDir()
		write(e, filepath.Join(dir, "f"), "content", 0o644)
		o := e.options("cat /dev/vol/f /dev/file; ls /dev/shm")
		o.Volumes = []isolation.Volume{
			{Source: dir, Target: "/dev/vol"}, {Source: filepath.Join(dir, "f"), Target: "/dev/file"}, {Source: dir, Target: "/dev/shm"}}
		e.equal("output", e.must(e.run(o)), "contentcontentf")
	}},
	{name: "volume through a link of the root", needs: []Feature{Volumes}, run: func(e *env) {
		// CVE-2022-23648, CVE-2021-30465: links are followed inside the root.
		root, canary := NewRoot(e), newCanary(e)
		link(e, canary.dir, filepath.Join(root, "lnk"))
		link(e, "work", filepath.Join(root, "inside"))
		src := e.TempDir()
		write(e, filepath.Join(src, "f"), "content", 0o644)
		o := e.options("cat /lnk/sub/f; cat /work/f")
		o.Volumes = []isolation.Volume{{Source: src, Target: "/lnk/sub"}, {Source: src, Target: "/inside"}}
		r := e.runIn(e.Context(), root, o, nil)
		if r.err == nil {
			e.equal("output", r.out, "contentcontent")
		}
		canary.check(e)
	}},
	{name: "propagation", needs: []Feature{Volumes, KernelMounts}, run: func(e *env) {
		// CVE-2024-9407 and what is near it: whatever is asked for, the step's
		// mounts have no peer and no master outside, not even with the
		// capability to mount, so that none of its mounts reaches the host.
		dir := e.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			e.Fatal(err)
		}
		before := mountPoints(e)
		o := e.options("mount -t tmpfs x /rshared/sub && touch /rshared/sub/mark || echo cannot mount; " +
			"for m in shared rshared private rprivate slave rslave; do echo $m $(grep ' /'$m' ' /proc/self/mountinfo | grep -c shared:); done; " +
			"grep -c master: /proc/self/mountinfo; true")
		o.CapAdd = []string{"SYS_ADMIN"}
		for _, m := range []string{"shared", "rshared", "private", "rprivate", "slave", "rslave"} {
			o.Volumes = append(o.Volumes, isolation.Volume{Source: dir, Target: "/" + m, Options: []string{m}})
		}
		out := strings.TrimPrefix(e.must(e.run(o)), "cannot mount\n")
		shared := "1"
		if slices.Contains(e.s.Lacks, PeerGroups) {
			shared = "0"
		}
		e.equal("groups", out, "shared "+shared+"\nrshared "+shared+"\nprivate 0\nrprivate 0\nslave 0\nrslave 0\n0")
		if _, err := os.Stat(filepath.Join(dir, "sub", "mark")); err == nil {
			e.Error("what the step has mounted is there on the host")
		}
		e.equal("the host's mounts", mountPoints(e), before)
	}},
	{name: "a volume without what is mounted below it", needs: []Feature{Volumes}, run: func(e *env) {
		if _, err := os.Stat("/dev/pts/ptmx"); err != nil {
			e.Skip("nothing is mounted below /dev")
		}
		for option, want := range map[string]string{"bind": "0", "rbind": "1"} {
			o := e.options("ls /v/null && ls /v/pts/ptmx 2>/dev/null | wc -l")
			o.Volumes = []isolation.Volume{{Source: "/dev", Target: "/v", Options: []string{option}, ReadOnly: true}}
			r := e.run(o)
			if option == "bind" && errors.Is(r.err, define.ErrUnsupported) {
				continue // in a user namespace
			}
			e.equal(option, e.must(r), "/v/null\n"+want)
		}
	}},
	{name: "a link as a volume", needs: []Feature{Trees}, run: func(e *env) {
		canary := newCanary(e)
		dir := e.TempDir()
		link(e, canary.dir, filepath.Join(dir, "l"))
		o := e.options("readlink /l; ls /l/ 2>/dev/null; true")
		o.Volumes = []isolation.Volume{{Tree: openLink(e, filepath.Join(dir, "l")), Target: "/l"}}
		r := e.run(o)
		if !errors.Is(r.err, define.ErrUnsupported) { // OCI runtimes cannot
			e.equal("output", e.must(r), canary.dir)
		}
		canary.check(e)
	}},
	{name: "trees", needs: []Feature{Trees}, run: func(e *env) {
		dir := e.TempDir()
		write(e, filepath.Join(dir, "f"), "content", 0o644)
		o := e.options("cat /tree/f; ! echo 2>/dev/null x >/tree/g && echo kept")
		o.Volumes = []isolation.Volume{{Tree: openTree(e, dir), Target: "/tree", ReadOnly: true}}
		e.equal("output", e.must(e.run(o)), "contentkept")
	}},
	{name: "root as a detached mount", needs: []Feature{DetachedRoot}, run: func(e *env) {
		spec, err := isolation.NewSpec(e.options("echo x >/new; ls /bin/sh"))
		if err != nil {
			e.Fatal(err)
		}
		dir := NewRoot(e)
		root := openTree(e, dir)
		e.equal("output", e.must(e.runSpec(e.Context(), root, spec, nil)), "/bin/sh")
		if _, err := os.Stat(filepath.Join(dir, "new")); err != nil {
			e.Error(err)
		}
	}},
	{name: "host mounts are unreachable", run: func(e *env) {
		out := e.sh("cut -d' ' -f5 /proc/self/mountinfo")
		for line := range strings.Lines(out) {
			m := strings.TrimSpace(line)
			if m != "/" && !strings.HasPrefix(m, "/proc") && !strings.HasPrefix(m, "/sys") && !strings.HasPrefix(m, "/dev") && !strings.HasPrefix(m, "/etc/") {
				e.Errorf("mount %s in the step", m)
			}
		}
	}},
	{name: "nothing lies over the root", run: func(e *env) {
		// A lookup of ".." crosses onto what is mounted over a root.
		e.equal("roots", e.sh("cut -d' ' -f5 /proc/self/mountinfo | grep -cx /"), "1")
		e.equal("above", e.sh("test \"$(ls -di / /etc/.. /proc/self/cwd/etc/../../.. | cut -c1-8 | sort -u | wc -l)\" = 1 && ls /etc/.. | grep -cx bin"), "1")
	}},
	{name: "device nodes of the root are dead", needs: []Feature{Nodev}, run: func(e *env) {
		root := NewRoot(e)
		makeDevice(e, filepath.Join(root, "mem"), 1, 5) // zero: harmless where it works
		if e.code(e.runIn(e.Context(), root, e.options("head -c1 /mem"), nil)) == 0 {
			e.Error("a device node of the image could be opened")
		}
	}},
	{name: "nothing is left in the root", run: func(e *env) {
		root := NewRoot(e)
		before := listing(e, root)
		e.must(e.runIn(e.Context(), root, e.options("true"), nil))
		e.equal("root", listing(e, root), before)
	}},
}

// masked checks that what tells of the host cannot be read.
func (e *env) masked(prefix string) {
	e.Helper()
	out := e.sh(prefix + `for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug; do
		[ -e $f ] && [ "$(head -c 10 $f 2>/dev/null | wc -c)" != 0 ] && echo $f is readable; done
		for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
		[ -e $d ] && [ -n "$(ls $d 2>/dev/null)" ] && echo $d is readable; done; true`)
	e.equal("masked", out, "")
}
