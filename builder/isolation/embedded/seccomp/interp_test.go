package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// data is struct seccomp_data.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

func (d data) String() string { return fmt.Sprintf("arch %#x nr %d args %#x", d.arch, d.nr, d.args) }

// run interprets prog as the kernel does; big says how the words of an
// argument lie.
func run(prog []insn, d data, big bool) (uint32, error) {
	var buf [64]byte
	order := binary.ByteOrder(binary.LittleEndian)
	if big {
		order = binary.BigEndian
	}
	order.PutUint32(buf[0:], d.nr)
	order.PutUint32(buf[4:], d.arch)
	for i, v := range d.args {
		order.PutUint64(buf[16+8*i:], v)
	}
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		take := false
		switch in.code {
		case opLoad:
			if in.k%4 != 0 || in.k > 60 {
				return 0, fmt.Errorf("pc %d: load at %d", pc, in.k)
			}
			acc = order.Uint32(buf[in.k:])
			continue
		case opAnd:
			acc &= in.k
			continue
		case opJA:
			pc += int(in.k)
			continue
		case opRet:
			return in.k, nil
		case opJEQ:
			take = acc == in.k
		case opJGT:
			take = acc > in.k
		case opJGE:
			take = acc >= in.k
		default:
			return 0, fmt.Errorf("pc %d: code %#x", pc, in.code)
		}
		if take {
			pc += int(in.jt)
		} else {
			pc += int(in.jf)
		}
	}
	return 0, fmt.Errorf("ran off the end")
}

// evaluator says from the profile's text what a program must return. It goes
// rule by rule and shares no code with the compiler but the table.
type evaluator struct {
	p     *specs.LinuxSeccomp
	h     host
	names map[int]map[uint32][]string // column, number
	// rules are those about a call whose action is not the default.
	rules map[int]map[uint32][]specs.LinuxSyscall
	top   map[int]int64
}

func newEvaluator(p *specs.LinuxSeccomp, goarch string) *evaluator {
	h, _ := hostFor(goarch)
	e := &evaluator{p: p, h: h, names: map[int]map[uint32][]string{}, rules: map[int]map[uint32][]specs.LinuxSyscall{}, top: map[int]int64{}}
	def := evalAction(p.DefaultAction, p.DefaultErrnoRet)
	for _, a := range h.runs {
		e.names[a.column] = map[uint32][]string{}
		e.rules[a.column] = map[uint32][]specs.LinuxSyscall{}
		e.top[a.column] = -1
		for _, c := range slices.Concat(calls[:], oldCalls[:]) {
			nr := c.nr[a.column]
			if nr < 0 {
				continue
			}
			e.names[a.column][uint32(nr)] = append(e.names[a.column][uint32(nr)], c.name)
			for _, s := range p.Syscalls {
				if evalAction(s.Action, s.ErrnoRet) != def && slices.Contains(s.Names, c.name) {
					e.rules[a.column][uint32(nr)] = append(e.rules[a.column][uint32(nr)], s)
				}
				if nr < armPrivate && slices.Contains(s.Names, c.name) {
					e.top[a.column] = max(e.top[a.column], int64(nr))
				}
			}
		}
	}
	return e
}

func evalAction(a specs.LinuxSeccompAction, e *uint) uint32 {
	errno := uint32(1)
	if e != nil {
		errno = uint32(*e)
	}
	return map[specs.LinuxSeccompAction]uint32{
		specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 1 << 31, specs.ActTrap: 3 << 16,
		specs.ActErrno: 5<<16 | errno, specs.ActTrace: 0x7ff<<20 | errno, specs.ActLog: 0x7ffc << 16, specs.ActAllow: 0x7fff << 16,
	}[a]
}

func holds(c specs.LinuxSeccompArg, args [6]uint64, narrow bool) bool {
	x, v, w := args[c.Index], c.Value, c.ValueTwo
	if narrow {
		x, v, w = x&0xffffffff, v&0xffffffff, w&0xffffffff
	}
	switch c.Op {
	case specs.OpEqualTo:
		return x == v
	case specs.OpNotEqual:
		return x != v
	case specs.OpLessThan:
		return x < v
	case specs.OpLessEqual:
		return x <= v
	case specs.OpGreaterThan:
		return x > v
	case specs.OpGreaterEqual:
		return x >= v
	default:
		return x&v == w
	}
}

func (e *evaluator) eval(d data) uint32 {
	i := slices.IndexFunc(e.h.runs, func(a arch) bool { return a.audit == d.arch })
	if i < 0 || i > 0 && !slices.Contains(e.p.Architectures, e.h.runs[i].name) {
		return 1 << 31
	}
	a := e.h.runs[i]
	if a.x32 && d.nr >= 1<<30 {
		return 5<<16 | 38
	}
	def := evalAction(e.p.DefaultAction, e.p.DefaultErrnoRet)
	names := e.names[a.column][d.nr]
	var conditional []specs.LinuxSyscall
	for _, s := range e.rules[a.column][d.nr] {
		if len(s.Args) == 0 {
			return evalAction(s.Action, s.ErrnoRet)
		}
		conditional = append(conditional, s)
	}
	for _, s := range conditional {
		all, some, repeated := true, false, false
		for j, c := range s.Args {
			h := holds(c, d.args, a.narrow)
			all, some = all && h, some || h
			repeated = repeated || slices.ContainsFunc(s.Args[:j], func(o specs.LinuxSeccompArg) bool { return o.Index == c.Index })
		}
		if all || repeated && some {
			return evalAction(s.Action, s.ErrnoRet)
		}
	}
	if len(conditional) == 0 {
		if v, ok := e.muxed(names, d, a, def); ok {
			return v
		}
	}
	if int64(d.nr) <= e.top[a.column] || len(conditional) > 0 {
		return def
	}
	switch e.p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return def
	}
	return 5<<16 | 38
}

// muxed: the profile is silent about socketcall or ipc itself, but may say
// something about the call that is meant.
func (e *evaluator) muxed(names []string, d data, a arch, def uint32) (uint32, bool) {
	for _, m := range muxed {
		code := uint32(d.args[0])
		if m.mux == "ipc" {
			code &= 0xffff
		}
		if !slices.Contains(names, m.mux) || code != m.code || !a.narrow && m.mux == "socketcall" && d.args[0]>>32 != 0 {
			continue
		}
		for _, s := range e.p.Syscalls {
			if v := evalAction(s.Action, s.ErrnoRet); v != def && len(s.Args) == 0 && slices.Contains(s.Names, m.name) {
				return v, true
			}
		}
	}
	// Any rule about a muxed call makes the multiplexer a named number.
	return def, len(names) == 1 && (names[0] == "ipc" || names[0] == "socketcall") && slices.ContainsFunc(muxed[:], func(m struct {
		name, mux string
		code      uint32
	}) bool {
		return m.mux == names[0] && slices.ContainsFunc(e.p.Syscalls, func(s specs.LinuxSyscall) bool {
			return evalAction(s.Action, s.ErrnoRet) != def && len(s.Args) == 0 && slices.Contains(s.Names, m.name)
		})
	})
}

// looksAtArgs tells whether anything but the number can matter.
func (e *evaluator) looksAtArgs(audit, nr uint32) bool {
	for _, a := range e.h.runs {
		if a.audit != audit {
			continue
		}
		names := e.names[a.column][nr]
		return slices.Contains(names, "ipc") || slices.Contains(names, "socketcall") ||
			slices.ContainsFunc(e.rules[a.column][nr], func(s specs.LinuxSyscall) bool { return len(s.Args) > 0 })
	}
	return false
}

// interesting lists argument values around everything that p compares with.
func interesting(p *specs.LinuxSeccomp) []uint64 {
	vs := []uint64{0, 1, 0xffffffff, 1 << 32, 1<<64 - 1, 0x00010001}
	for _, s := range p.Syscalls {
		for _, c := range s.Args {
			vs = append(vs, c.Value, c.Value-1, c.Value+1, c.Value^1<<32, c.Value&0xffffffff, c.ValueTwo, c.ValueTwo|^c.Value, c.Value&-c.Value)
		}
	}
	slices.Sort(vs)
	return slices.Compact(vs)
}

// check compares the compiled program with the evaluator for every number of
// every architecture of the host, known or not.
func check(t *testing.T, p *specs.LinuxSeccomp, goarch string) int {
	t.Helper()
	prog, err := compile(p, goarch)
	if err != nil {
		t.Fatalf("compile for %s: %v", goarch, err)
	}
	e := newEvaluator(p, goarch)
	big := e.h.runs[0].big
	values := interesting(p)
	nrs := []uint32{armPrivate - 1, x32Bit - 1, x32Bit, x32Bit + 1, x32Bit + 520, 1 << 31, 1<<32 - 1}
	for nr := range uint32(600) {
		nrs = append(nrs, nr)
	}
	for nr := range uint32(8) {
		nrs = append(nrs, armPrivate+nr)
	}
	n := 0
	compare := func(d data) {
		n++
		got, err := run(prog, d, big)
		if want := e.eval(d); err != nil || got != want {
			t.Errorf("%s: %v: got %#x, want %#x, %v", goarch, d, got, want, err)
		}
	}
	audits := []uint32{0, 0xdeadbeef}
	for _, h := range hosts {
		audits = append(audits, h.runs[0].audit)
	}
	for _, a := range audits {
		for _, nr := range nrs {
			compare(data{nr: nr, arch: a})
			compare(data{nr, a, [6]uint64{1<<64 - 1, 1 << 32, 1, 2, 3, 4}})
			if !e.looksAtArgs(a, nr) {
				continue
			}
			for i, v := range values {
				compare(data{nr, a, [6]uint64{v, v, v, v, v, v}})
				compare(data{nr, a, [6]uint64{v, values[(i+1)%len(values)], values[(i+2)%len(values)], 0, v, 1}})
			}
			if t.Failed() {
				return n
			}
		}
	}
	return n
}
