package seccomp

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestAsking: a program that asks does what the other one does, but for the
// calls that it asks about where that one allows them.
func TestAsking(t *testing.T) {
	t.Parallel()
	ask := Asked{Native: []string{"chown", "fchownat", "mount", "nosuchcall", "statx"}, Compat: []string{"chown32", "statx"}}
	deny := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"chown"}, Action: specs.ActErrno}}}
	for _, h := range hosts {
		def, err := Default(stepCaps)
		if err != nil {
			t.Fatal(err)
		}
		for i := range h.runs {
			if !slices.Contains(def.Architectures, h.runs[i].name) {
				def.Architectures = append(def.Architectures, h.runs[i].name)
			}
		}
		deny.Architectures = def.Architectures
		for _, p := range []*specs.LinuxSeccomp{def, deny} {
			plain, err := compile(p, h.goarch)
			if err != nil {
				t.Fatal(err)
			}
			asking, err := compileAsking(p, h.goarch, ask.on)
			if err != nil {
				t.Fatal(err)
			}
			asks := 0
			for i := range h.runs {
				a := &h.runs[i]
				for nr := range uint32(600) {
					d := data{nr: nr, arch: a.audit}
					want, err1 := run(plain, d, a.big)
					got, err2 := run(asking, d, a.big)
					if err1 != nil || err2 != nil {
						t.Fatal(err1, err2)
					}
					name := func(n string) bool { v, ok := a.number(n); return ok && v == nr }
					if want == retAllow && slices.ContainsFunc(ask.names(i == 0), name) {
						want = retUserNotif
						asks++
					}
					if got != want {
						t.Errorf("%s: %v: %#x, want %#x", h.goarch, d, got, want)
					}
				}
			}
			if asks == 0 {
				t.Errorf("%s: it asks about nothing", h.goarch)
			}
		}
	}
}

// TestAskingUnconfined: without a profile all else is allowed.
func TestAskingUnconfined(t *testing.T) {
	t.Parallel()
	b, err := CompileAsking(nil, Asked{Native: []string{"fchownat"}})
	if err != nil || len(b) == 0 || len(b)/8 > 40 {
		t.Fatalf("%d instructions, %v", len(b)/8, err)
	}
}

// TestCalls: a notification's numbers have names.
func TestCalls(t *testing.T) {
	t.Parallel()
	k := Asked{Native: []string{"fchownat", "nosuchcall"}}
	list := k.Calls()
	if len(list) != 1 {
		t.Fatalf("%v", list)
	}
	for _, n := range list {
		if n.Name != "fchownat" {
			t.Errorf("%v", n)
		}
	}
}

// TestAskingWhen: of calls with conditions only those with one of the bits are
// asked about.
func TestAskingWhen(t *testing.T) {
	t.Parallel()
	ask := Asked{Native: []string{"openat", "access"}, Compat: []string{"openat"},
		When: map[string]Bits{"openat": {2, 0o101}, "access": {1, 2}}}
	for _, h := range hosts {
		for _, p := range []*specs.LinuxSeccomp{nil, {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"openat", "access"}, Action: specs.ActAllow}}}} {
			if p == nil {
				p = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
			}
			for i := range h.runs {
				p.Architectures = append(p.Architectures, h.runs[i].name)
			}
			prog, err := compileAsking(p, h.goarch, ask.on)
			if err != nil {
				t.Fatal(err)
			}
			for i := range h.runs {
				a := &h.runs[i]
				nr, ok := a.number("openat")
				if !ok {
					t.Fatalf("%s: no openat", a.name)
				}
				for flags, want := range map[uint64]uint32{0: retAllow, 0o100: retUserNotif, 1: retUserNotif, 2: retAllow, 0o1102: retUserNotif, 1 << 40: retAllow} {
					d := data{nr: nr, arch: a.audit}
					d.args[2] = flags
					if got, err := run(prog, d, a.big); err != nil || got != want {
						t.Errorf("%s: openat with %#o: %#x, want %#x (%v)", a.name, flags, got, want, err)
					}
				}
			}
		}
	}
}
