package seccomp

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/stratabuild/strata/define"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What a program returns (uapi/linux/seccomp.h).
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retUserNotif   = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
)

// Errnos are the same on all architectures of the table.
const (
	ePERM    = 1
	eNOSYS   = 38
	maxErrno = 4095
)

// Places in struct seccomp_data; the six arguments have eight bytes each.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// x32Bit marks the numbers of the x32 ABI (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// Compile translates p for this host: an array of struct sock_filter in
// native byte order, as SECCOMP_SET_MODE_FILTER takes it (len/8 instructions).
// p.Flags are not part of a program; whoever loads it passes them on.
// SCMP_ACT_NOTIFY and unknown actions, operators, argument indices and
// architectures are errors (define.ErrInvalid, define.ErrUnsupported).
func Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	prog, err := compile(p, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return encode(prog), nil
}

// rule is one rule of the profile with its action translated. All of args
// must hold; an unconditional rule has none.
type rule struct {
	names  []string
	args   []specs.LinuxSeccompArg
	action uint32
}

func compile(p *specs.LinuxSeccomp, goarch string) ([]insn, error) {
	return compileAsking(p, goarch, nil)
}

// compileAsking is compile with calls that a listener is asked about: where
// the profile would allow one of ask's, the listener decides.
func compileAsking(p *specs.LinuxSeccomp, goarch string, ask func(native bool) asking) ([]insn, error) {
	if p == nil {
		return nil, fmt.Errorf("seccomp profile is missing: %w", define.ErrInvalid)
	}
	h, ok := hostFor(goarch)
	if !ok {
		return nil, fmt.Errorf("seccomp: no system call table for %s, run with seccomp=unconfined: %w", goarch, define.ErrUnsupported)
	}
	for _, a := range p.Architectures {
		if !knownArch(a) {
			return nil, fmt.Errorf("seccomp profile: unknown architecture %q: %w", a, define.ErrInvalid)
		}
	}
	def, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	rules, err := translate(p, def)
	if err != nil {
		return nil, err
	}
	beyond := uint32(retErrno | eNOSYS)
	switch p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		beyond = def
	}

	asm := &assembler{rets: map[uint32]label{}}
	entry := asm.ret(retKillProcess)
	for i := len(h.runs) - 1; i >= 0; i-- {
		a := &h.runs[i]
		if i > 0 && !slices.Contains(p.Architectures, a.name) {
			continue
		}
		var asked asking
		if ask != nil {
			asked = ask(i == 0)
		}
		start := asm.tree(a, segments(a, p, rules, def, beyond, asked))
		if a.x32 {
			start = asm.branch(opJGE, x32Bit, asm.ret(retErrno|eNOSYS), start)
		}
		start = asm.straight(opLoad, dataNr, start)
		entry = asm.branch(opJEQ, a.audit, start, entry)
	}
	asm.straight(opLoad, dataArch, entry)
	return asm.program()
}

// action translates an action; errnoRet is looked at where it has a meaning.
func action(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	e := uint32(ePERM)
	if errnoRet != nil {
		if *errnoRet > maxErrno {
			return 0, fmt.Errorf("seccomp profile: errno %d of %s: want 0 to %d: %w", *errnoRet, a, maxErrno, define.ErrInvalid)
		}
		e = uint32(*errnoRet)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActErrno:
		return retErrno | e, nil
	case specs.ActTrace:
		return retTrace | e, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActNotify:
		return 0, fmt.Errorf("seccomp profile: %s needs a listener process, which a build has not: %w", a, define.ErrUnsupported)
	}
	return 0, fmt.Errorf("seccomp profile: unknown action %q: %w", a, define.ErrInvalid)
}

// translate checks the profile's rules and brings them into rule form.
// Rules that would do what the default does are left out.
func translate(p *specs.LinuxSeccomp, def uint32) ([]rule, error) {
	rules := make([]rule, 0, len(p.Syscalls))
	for _, s := range p.Syscalls {
		if len(s.Names) == 0 {
			return nil, fmt.Errorf("seccomp profile: a rule with action %s names no system call: %w", s.Action, define.ErrInvalid)
		}
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("%w (rule for %s)", err, s.Names[0])
		}
		var seen [6]bool
		repeated := false
		for _, c := range s.Args {
			if c.Index > 5 {
				return nil, fmt.Errorf("seccomp profile: rule for %s: argument index %d: want 0 to 5: %w", s.Names[0], c.Index, define.ErrInvalid)
			}
			if !knownOp(c.Op) {
				return nil, fmt.Errorf("seccomp profile: rule for %s: unknown operator %q: %w", s.Names[0], c.Op, define.ErrInvalid)
			}
			repeated = repeated || seen[c.Index]
			seen[c.Index] = true
		}
		switch {
		case act == def:
		case repeated:
			for i := range s.Args {
				rules = append(rules, rule{s.Names, s.Args[i : i+1], act})
			}
		default:
			rules = append(rules, rule{s.Names, s.Args, act})
		}
	}
	return rules, nil
}

func knownOp(op specs.LinuxSeccompOperator) bool {
	switch op {
	case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual:
		return true
	}
	return false
}
