package seccomp

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/stratabuild/strata/define"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// source hands out the fuzzer's bytes, then zeros.
type source []byte

func (s *source) next(n int) int {
	if len(*s) == 0 {
		return 0
	}
	b := int((*s)[0])
	*s = (*s)[1:]
	return b % n
}

func (s *source) word() uint64 {
	v := [...]uint64{0, 1, 7, 0xff, 0xffffffff, 1 << 32, 0x1_0000_0001, 1<<63 | 1, 1<<64 - 1}
	return v[s.next(len(v))] ^ uint64(s.next(4))
}

// profile makes a valid profile of any shape.
func (s *source) profile() *specs.LinuxSeccomp {
	actions := [...]specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess,
		specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActKillThread}
	ops := [...]specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	arches := [...]specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchARM, specs.ArchMIPS}
	all := slices.Concat(calls[:], oldCalls[:])
	p := &specs.LinuxSeccomp{DefaultAction: actions[s.next(len(actions))]}
	if s.next(2) == 1 {
		p.DefaultErrnoRet = errno(uint(s.next(50)))
	}
	for range s.next(4) {
		p.Architectures = append(p.Architectures, arches[s.next(len(arches))])
	}
	for range s.next(24) {
		r := specs.LinuxSyscall{Action: actions[s.next(len(actions))]}
		if s.next(2) == 1 {
			r.ErrnoRet = errno(uint(s.next(50)))
		}
		for range 1 + s.next(6) {
			r.Names = append(r.Names, all[(s.next(256)*256+s.next(256))%len(all)].name)
		}
		for range s.next(4) {
			r.Args = append(r.Args, arg(uint(s.next(6)), ops[s.next(len(ops))], s.word(), s.word()))
		}
		p.Syscalls = append(p.Syscalls, r)
	}
	return p
}

// FuzzCompile compares programs of random profiles with their profiles.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x01\x00\x02\x00\x01\x10\x00\x00\x03\x01\x70\x02\x03\x04\x01\x01\x00\x05\x06\x02\x05\x03\x01\x00\x03"))
	f.Add([]byte("some text that makes a few rules with many conditions on arguments of one and the same call, again and again"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := source(b)
		p := s.profile()
		h := hosts[s.next(len(hosts))]
		if _, err := compile(p, h.goarch); err != nil {
			t.Fatalf("%v", err)
		}
		check(t, p, h.goarch)
	})
}

// FuzzProfile: whatever a profile holds, there is a program that ends, or an
// error of a known kind.
func FuzzProfile(f *testing.F) {
	f.Add("SCMP_ACT_ERRNO", "SCMP_ARCH_X86", "read", "SCMP_ACT_ALLOW", "SCMP_CMP_EQ", uint(0), uint64(1), uint64(2), uint(1))
	f.Add("SCMP_ACT_NOTIFY", "", "", "", "", uint(9), uint64(0), uint64(0), uint(70000))
	f.Fuzz(func(t *testing.T, def, a, name, action, op string, index uint, v, w uint64, e uint) {
		p := &specs.LinuxSeccomp{
			DefaultAction: specs.LinuxSeccompAction(def), DefaultErrnoRet: &e, Architectures: []specs.Arch{specs.Arch(a)},
			Syscalls: []specs.LinuxSyscall{{Names: []string{name}, Action: specs.LinuxSeccompAction(action), ErrnoRet: &e,
				Args: []specs.LinuxSeccompArg{arg(index, specs.LinuxSeccompOperator(op), v, w)}}},
		}
		prog, err := compile(p, runtime.GOARCH)
		if err != nil {
			if !errors.Is(err, define.ErrInvalid) && !errors.Is(err, define.ErrUnsupported) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		for _, nr := range []uint32{0, 1, 500, x32Bit, 1<<32 - 1} {
			if _, err := run(prog, data{nr: nr, arch: 0xc000003e, args: [6]uint64{v, w, v, w, v, w}}, false); err != nil {
				t.Error(err)
			}
		}
	})
}
