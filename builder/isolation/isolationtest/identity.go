package isolationtest

import (
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/isolation"
)

var identityCases = append([]testCase{
	{name: "root by default", run: func(e *env) { e.equal("id", e.sh("id -u; id -g"), "0\n0") }},
	{name: "user and groups", run: func(e *env) {
		if e.s.SingleID {
			e.Skip("one id only")
		}
		// CVE-2022-2990 and its kin: the primary group is among the groups.
		o := e.options("id -u; id -g; grep Groups /proc/self/status | tr -s ' \t' ' '")
		o.UID, o.GID, o.Groups = 1000, 1001, []uint32{1001, 1002}
		e.equal("id", e.must(e.run(o)), "1000\n1001\nGroups: 1001 1002")
	}},
	{name: "groups of the caller are gone", run: func(e *env) {
		if e.s.SingleID {
			e.Skip("setgroups is denied where one id is mapped")
		}
		e.equal("groups", strings.TrimSpace(e.sh("grep Groups /proc/self/status | cut -d: -f2")), "")
	}},
	{name: "capabilities of root", run: func(e *env) {
		e.equal("caps", e.caps(e.options(capScript)), "inh=0 prm=800405fb eff=800405fb bnd=800405fb amb=0")
	}},
	{name: "capabilities added and dropped", run: func(e *env) {
		o := e.options(capScript)
		o.CapDrop, o.CapAdd = []string{"ALL"}, []string{"CHOWN", "cap_setuid"}
		e.equal("caps", e.caps(o), "inh=0 prm=81 eff=81 bnd=81 amb=0")
		o = e.options(capScript)
		o.CapDrop = []string{"ALL"}
		e.equal("caps", e.caps(o), "inh=0 prm=0 eff=0 bnd=0 amb=0")
	}},
	{name: "capabilities of a user", run: func(e *env) {
		if e.s.SingleID {
			e.Skip("one id only")
		}
		// CVE-2018-10856, CVE-2022-27651.
		o := e.options(capScript)
		o.UID, o.GID = 1000, 1000
		e.equal("caps", e.caps(o), "inh=0 prm=0 eff=0 bnd=800405fb amb=0")
	}},
	{name: "no new privileges as asked", run: func(e *env) {
		for _, on := range []bool{false, true} {
			o := e.options("grep NoNewPrivs /proc/self/status | tr -dc 01")
			o.NoNewPrivileges = on
			e.equal("NoNewPrivs", e.must(e.run(o)), map[bool]string{false: "0", true: "1"}[on])
		}
	}},
	{name: "seccomp is on", needs: []Feature{Seccomp}, run: func(e *env) {
		script := "grep -w Seccomp: /proc/self/status | tr -dc 0-9"
		e.equal("Seccomp", e.sh(script), "2")
		o := e.options(script)
		o.NoNewPrivileges = true
		e.equal("Seccomp with no new privileges", e.must(e.run(o)), "2")
	}},
	{name: "seccomp denies", needs: []Feature{Seccomp}, run: func(e *env) {
		// CVE-2026-31431's family: what a default step cannot reach.
		for _, c := range []string{"unshare -U true", "unshare -m true", "mount -t tmpfs x /tmp", "umount /proc"} {
			if got := e.code(e.run(e.options(c + " 2>/dev/null"))); got == 0 {
				e.Errorf("%s: worked", c)
			}
		}
	}},
	{name: "seccomp denies system calls", needs: []Feature{Seccomp}, run: func(e *env) {
		for line := range strings.Lines(e.must(e.probe("calls", nil))) {
			if !strings.HasSuffix(strings.TrimSpace(line), " denied") {
				e.Error(line)
			}
		}
	}},
	{name: "no terminal of the caller's", run: func(e *env) {
		e.equal("terminal", e.must(e.probe("terminal", nil)), "")
	}},
	{name: "seccomp off as asked", run: func(e *env) {
		o := e.options("grep -w Seccomp: /proc/self/status | tr -dc 0-9")
		o.SeccompUnconfined = true
		own := strings.TrimSpace(ownStatus(e, "Seccomp:"))
		e.equal("Seccomp", e.must(e.run(o)), own)
	}},
	{name: "seccomp does not break a user's step", needs: []Feature{Seccomp}, run: func(e *env) {
		if e.s.SingleID {
			e.Skip("one id only")
		}
		for _, nnp := range []bool{false, true} {
			o := e.options("id -u; ls / >/dev/null; echo ok")
			o.UID, o.GID, o.NoNewPrivileges = 1000, 1000, nnp
			e.equal("output", e.must(e.run(o)), "1000\nok")
		}
	}},
	{name: "a user can open its output again", run: func(e *env) {
		if e.s.SingleID {
			e.Skip("one id only")
		}
		o := e.options("echo a >/dev/stdout; echo b >/proc/self/fd/2")
		o.UID, o.GID = 1000, 1000
		r := e.run(o)
		e.equal("stdout", e.must(r), "a")
		e.equal("stderr", r.errOut, "b")
	}},
	{name: "hostname", needs: []Feature{UTSNamespace}, run: func(e *env) {
		o := e.options("hostname; cat /etc/hostname")
		o.Hostname = "builder.example"
		e.equal("hostname", e.must(e.run(o)), "builder.example\nbuilder.example")
	}},
	{name: "namespaces differ from the host's", run: func(e *env) {
		out := e.sh("for n in pid mnt ipc uts cgroup net; do echo $n $(readlink /proc/self/ns/$n); done")
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			own := readLink(e, "/proc/self/ns/"+f[0])
			feature, same := map[string]Feature{"pid": PIDNamespace, "ipc": IPCNamespace, "uts": UTSNamespace,
				"cgroup": CgroupNamespace}[f[0]], false
			switch f[0] {
			case "net":
				same = e.s.Network == "host"
			case "mnt":
			default:
				same = slices.Contains(e.s.Lacks, feature)
			}
			if (f[1] == own) != same {
				e.Errorf("%s namespace: step %s, host %s", f[0], f[1], own)
			}
		}
	}},
}, ownerCases...)

const capScript = "grep ^Cap /proc/self/status"

// caps runs o and writes its capability lines on one line, without zeros in
// front.
func (e *env) caps(o isolation.Options) string {
	e.Helper()
	var out []string
	for line := range strings.Lines(e.must(e.run(o))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimLeft(strings.TrimSpace(value), "0")
		if value == "" {
			value = "0"
		}
		out = append(out, strings.ToLower(strings.TrimPrefix(name, "Cap"))+"="+value)
	}
	return strings.Join(out, " ")
}
