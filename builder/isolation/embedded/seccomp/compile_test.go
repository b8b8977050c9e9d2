package seccomp

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// stepCaps is the bounding set of an ordinary step.
var stepCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

func TestDefaultProfile(t *testing.T) {
	t.Parallel()
	for _, caps := range [][]string{nil, stepCaps, {"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE"}} {
		p, err := Default(caps)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			// The profile is resolved for this host; its rules make sense
			// for the others too.
			p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchS390X, specs.ArchMIPS}
			n := check(t, p, h.goarch)
			if n < 5000 {
				t.Errorf("%s: %d comparisons only", h.goarch, n)
			}
		}
	}
}

func TestDefaultKnowsCapabilities(t *testing.T) {
	t.Parallel()
	named := func(caps []string, call string) bool {
		p, err := Default(caps)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool {
			return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, call)
		})
	}
	for _, c := range []struct {
		caps []string
		want bool
	}{{stepCaps, false}, {[]string{"CAP_SYS_ADMIN"}, true}, {[]string{"SYS_ADMIN"}, true}} {
		if got := named(c.caps, "mount"); got != c.want {
			t.Errorf("mount allowed with %v: %v", c.caps, got)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	p, err := Default(stepCaps)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := compile(p, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	// Every attach makes the kernel run the program once for each number:
	// growth is paid by every step.
	if len(prog) > 600 {
		t.Errorf("default profile: %d instructions", len(prog))
	}
	t.Logf("%d instructions", len(prog))
}

func arg(index uint, op specs.LinuxSeccompOperator, value, two uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: value, ValueTwo: two, Op: op}
}

func errno(e uint) *uint { return &e }

func TestProfiles(t *testing.T) {
	t.Parallel()
	all := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchARM}
	allow := func(names string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: strings.Fields(names), Action: specs.ActAllow, Args: args}
	}
	deny := func(e uint, names string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: strings.Fields(names), Action: specs.ActErrno, ErrnoRet: errno(e), Args: args}
	}
	var many []specs.LinuxSyscall
	for i := range uint64(100) {
		many = append(many, allow("ioctl", arg(1, specs.OpEqualTo, i<<32|i*3, 0)))
	}
	for name, p := range map[string]specs.LinuxSeccomp{
		"empty":         {DefaultAction: specs.ActErrno},
		"empty allow":   {DefaultAction: specs.ActAllow, Architectures: all},
		"kill":          {DefaultAction: specs.ActKill, Syscalls: []specs.LinuxSyscall{allow("read write exit")}},
		"kill process":  {DefaultAction: specs.ActKillProcess, Syscalls: []specs.LinuxSyscall{allow("read write exit")}},
		"trap":          {DefaultAction: specs.ActTrap, Syscalls: []specs.LinuxSyscall{allow("read")}},
		"trace":         {DefaultAction: specs.ActTrace, DefaultErrnoRet: errno(5), Syscalls: []specs.LinuxSyscall{allow("read")}},
		"log":           {DefaultAction: specs.ActLog, Syscalls: []specs.LinuxSyscall{deny(13, "mount")}},
		"blocklist":     {DefaultAction: specs.ActAllow, Architectures: all, Syscalls: []specs.LinuxSyscall{deny(13, "mount socket shmget msgrcv"), deny(1, "connect", arg(2, specs.OpGreaterThan, 16, 0))}},
		"mux named":     {DefaultAction: specs.ActAllow, Architectures: all, Syscalls: []specs.LinuxSyscall{deny(13, "socket"), deny(7, "socketcall", arg(0, specs.OpEqualTo, 3, 0))}},
		"default errno": {DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(38), Architectures: all, Syscalls: []specs.LinuxSyscall{allow("read"), deny(38, "write"), deny(1, "exit")}},
		"equal 64":      {DefaultAction: specs.ActErrno, Architectures: all, Syscalls: []specs.LinuxSyscall{allow("ioctl", arg(1, specs.OpEqualTo, 0x1_0000_0002, 0))}},
		"not equal 64":  {DefaultAction: specs.ActErrno, Architectures: all, Syscalls: []specs.LinuxSyscall{allow("ioctl", arg(5, specs.OpNotEqual, 0x1_0000_0002, 0))}},
		"orders": {DefaultAction: specs.ActErrno, Architectures: all, Syscalls: []specs.LinuxSyscall{
			allow("read", arg(0, specs.OpLessThan, 0x5_0000_0005, 0)), allow("write", arg(0, specs.OpLessEqual, 0x5_0000_0005, 0)),
			allow("close", arg(0, specs.OpGreaterThan, 0x5_0000_0005, 0)), allow("dup", arg(0, specs.OpGreaterEqual, 0x5_0000_0005, 0)),
		}},
		"masks": {DefaultAction: specs.ActErrno, Architectures: all, Syscalls: []specs.LinuxSyscall{
			allow("read", arg(0, specs.OpMaskedEqual, 0xf0_0000_00f0, 0x10_0000_0010)), allow("write", arg(0, specs.OpMaskedEqual, 0, 0)),
			allow("close", arg(0, specs.OpMaskedEqual, 0xf, 0x10)), allow("dup", arg(0, specs.OpMaskedEqual, 0xffffffff, 7)),
			allow("dup3", arg(0, specs.OpMaskedEqual, 0xffffffff_ffffffff, 7)),
		}},
		"and":                   {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("ioctl", arg(0, specs.OpNotEqual, 0, 0), arg(1, specs.OpLessThan, 5, 0), arg(2, specs.OpEqualTo, 1, 0))}},
		"or of one argument":    {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("ioctl", arg(0, specs.OpEqualTo, 1, 0), arg(0, specs.OpEqualTo, 0xffffffff, 0), arg(2, specs.OpEqualTo, 0, 0))}},
		"unconditional wins":    {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{deny(9, "ioctl", arg(0, specs.OpEqualTo, 1, 0)), allow("ioctl"), deny(8, "ioctl")}},
		"first match":           {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{deny(9, "ioctl", arg(0, specs.OpLessThan, 10, 0)), allow("ioctl", arg(0, specs.OpLessThan, 0xffffffff, 0))}},
		"far jumps":             {DefaultAction: specs.ActErrno, Architectures: all, Syscalls: append(many, allow("read write open close stat"))},
		"unknown call ignored":  {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("no_such_call read")}},
		"foreign architectures": {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchMIPS, specs.ArchS390}, Syscalls: []specs.LinuxSyscall{allow("read")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, h := range hosts {
				if name == "far jumps" && testing.Short() && h.goarch != runtime.GOARCH {
					continue
				}
				check(t, &p, h.goarch)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	rule := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		if s.Action == "" {
			s.Action = specs.ActAllow
		}
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{s}}
	}
	var huge specs.LinuxSeccomp
	huge.DefaultAction = specs.ActErrno
	for i := range uint64(3000) {
		huge.Syscalls = append(huge.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, i, 0)}})
	}
	for _, c := range []struct {
		name string
		p    *specs.LinuxSeccomp
		kind error
		want string
	}{
		{"nil", nil, define.ErrInvalid, "missing"},
		{"no default", &specs.LinuxSeccomp{}, define.ErrInvalid, "unknown action"},
		{"notify", rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActNotify}), define.ErrUnsupported, "SCMP_ACT_NOTIFY"},
		{"action", rule(specs.LinuxSyscall{Names: []string{"read"}, Action: "ALLOW"}), define.ErrInvalid, `"ALLOW"`},
		{"no names", rule(specs.LinuxSyscall{}), define.ErrInvalid, "names no system call"},
		{"index", rule(specs.LinuxSyscall{Names: []string{"read"}, Args: []specs.LinuxSeccompArg{arg(6, specs.OpEqualTo, 0, 0)}}), define.ErrInvalid, "index 6"},
		{"operator", rule(specs.LinuxSyscall{Names: []string{"read"}, Args: []specs.LinuxSeccompArg{arg(0, "==", 0, 0)}}), define.ErrInvalid, "operator"},
		{"errno", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(4096)}, define.ErrInvalid, "4096"},
		{"architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{"x86_64"}}, define.ErrInvalid, "x86_64"},
		{"too long", &huge, define.ErrInvalid, "4096"},
	} {
		if _, err := Compile(c.p); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "mips"); !errors.Is(err, define.ErrUnsupported) {
		t.Errorf("mips: %v", err)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	for _, table := range [][]call{calls[:], oldCalls[:]} {
		if !slices.IsSortedFunc(table, func(a, b call) int { return strings.Compare(a.name, b.name) }) {
			t.Error("a table is not sorted")
		}
	}
	for _, c := range oldCalls {
		if _, twice := find(calls[:], c.name); twice || c.nr[colAMD64] >= 0 || c.nr[colARM64] >= 0 {
			t.Errorf("%s belongs to the other table", c.name)
		}
	}
	for _, c := range []struct {
		column int
		name   string
		nr     int32
	}{
		{colAMD64, "read", 0}, {colAMD64, "clone3", 435}, {col386, "socketcall", 102}, {colARM64, "openat", 56}, {colARM, "set_tls", 0x0f0005},
		{colRISCV64, "riscv_flush_icache", 259}, {colPPC64LE, "sync_file_range2", 308}, {colS390X, "clone", 120}, {colLoong64, "execve", 221},
	} {
		if nr, ok := (&arch{column: c.column}).number(c.name); !ok || nr != uint32(c.nr) {
			t.Errorf("column %d: %s is %d, %v", c.column, c.name, nr, ok)
		}
	}
}

func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		if _, err := Default(stepCaps); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	p, err := Default(stepCaps)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
