package seccomp

import (
	"cmp"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// verdict is what is decided about one system call: the rules in turn, and
// action when none of them holds.
type verdict struct {
	rules  []guarded
	action uint32
}

// guarded is an action under conditions.
type guarded struct {
	args   []specs.LinuxSeccompArg
	action uint32
}

func (v verdict) equal(w verdict) bool {
	return v.action == w.action && slices.EqualFunc(v.rules, w.rules, func(a, b guarded) bool {
		return a.action == b.action && slices.Equal(a.args, b.args)
	})
}

// ask has a listener decide what the profile allows, where one of the bits
// is set.
func (v *verdict) ask(when Bits) {
	if when.Mask != 0 && len(v.rules) == 0 && v.action == retAllow {
		none := specs.LinuxSeccompArg{Index: when.Index, Op: specs.OpMaskedEqual, Value: uint64(when.Mask)}
		v.rules = []guarded{{[]specs.LinuxSeccompArg{none}, retAllow}}
		v.action = retUserNotif
		return
	}
	if v.action == retAllow {
		v.action = retUserNotif
	}
	for i := range v.rules {
		if v.rules[i].action == retAllow {
			v.rules[i].action = retUserNotif
		}
	}
}

// segment says what is decided about the numbers from its first up to the
// next segment's first.
type segment struct {
	first uint32
	verdict
}

// segments lays out the whole range of numbers for one architecture.
func segments(a *arch, p *specs.LinuxSeccomp, rules []rule, def, beyond uint32, ask asking) []segment {
	named := verdicts(a, rules, def, ask)
	highest := int64(-1)
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if nr, ok := a.number(name); ok && nr < armPrivate {
				highest = max(highest, int64(nr))
			}
		}
	}
	var segs []segment
	add := func(first uint32, v verdict) {
		if n := len(segs); n > 0 && segs[n-1].equal(v) {
			return
		}
		segs = append(segs, segment{first, v})
	}
	gap := func(from, to int64) { // [from,to)
		if from < to && from <= highest {
			add(uint32(from), verdict{action: def})
		}
		if from = max(from, highest+1); from < to {
			add(uint32(from), verdict{action: beyond})
		}
	}
	next := int64(0)
	for _, s := range named {
		gap(next, int64(s.first))
		add(s.first, s.verdict)
		next = int64(s.first) + 1
	}
	gap(next, 1<<32)
	return segs
}

// verdicts returns the calls that the rules or ask name, sorted by number.
func verdicts(a *arch, rules []rule, def uint32, ask asking) []segment {
	byNr := make(map[uint32]*verdict, 512)
	settled := make(map[uint32]bool, 512) // by an unconditional rule
	set := func(nr uint32, r guarded) {
		v := byNr[nr]
		if v == nil {
			v = &verdict{action: def}
			byNr[nr] = v
		}
		switch {
		case settled[nr]:
		case len(r.args) == 0:
			*v = verdict{action: r.action}
			settled[nr] = true
		default:
			v.rules = append(v.rules, r)
		}
	}
	for _, r := range rules {
		for _, name := range r.names {
			if nr, ok := a.number(name); ok {
				set(nr, guarded{r.args, r.action})
			}
		}
	}
	addMuxed(a, rules, set)
	for _, name := range ask.names {
		nr, ok := a.number(name)
		if !ok {
			continue
		}
		v := byNr[nr]
		if v == nil && def == retAllow {
			v = &verdict{action: retAllow}
			byNr[nr] = v
		}
		if v != nil {
			v.ask(ask.when[name])
		}
	}
	segs := make([]segment, 0, len(byNr))
	for nr, v := range byNr {
		segs = append(segs, segment{nr, *v})
	}
	slices.SortFunc(segs, func(x, y segment) int { return cmp.Compare(x.first, y.first) })
	return segs
}

// addMuxed repeats unconditional rules for the multiplexed form of a call.
// The other rules cannot be: the arguments lie in memory there.
func addMuxed(a *arch, rules []rule, set func(uint32, guarded)) {
	for _, mux := range [...]string{"socketcall", "ipc"} {
		nr, ok := a.number(mux)
		if !ok || slices.ContainsFunc(rules, func(r rule) bool { return slices.Contains(r.names, mux) }) {
			continue
		}
		for _, r := range rules {
			if len(r.args) != 0 {
				continue
			}
			for _, m := range muxed {
				if m.mux != mux || !slices.Contains(r.names, m.name) {
					continue
				}
				// ipc(2) has a version in the high half of the code.
				arg := specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: 0xffffffff, ValueTwo: uint64(m.code)}
				if mux == "ipc" {
					arg.Value = 0xffff
				}
				set(nr, guarded{[]specs.LinuxSeccompArg{arg}, r.action})
			}
		}
	}
}

// tree emits a binary search over segs; the accumulator holds the number.
func (asm *assembler) tree(a *arch, segs []segment) label {
	// Calls under the same conditions share their code.
	type block struct {
		verdict
		at label
	}
	var blocks []block
	leaf := func(v verdict) label {
		if len(v.rules) == 0 {
			return asm.ret(v.action)
		}
		for _, b := range blocks {
			if b.equal(v) {
				return b.at
			}
		}
		at := asm.guards(a, v)
		blocks = append(blocks, block{v, at})
		return at
	}
	var node func([]segment) label
	node = func(segs []segment) label {
		if len(segs) == 1 {
			return leaf(segs[0].verdict)
		}
		mid := len(segs) / 2
		right := node(segs[mid:])
		left := node(segs[:mid])
		return asm.branch(opJGE, segs[mid].first, right, left)
	}
	return node(segs)
}

// guards emits v's rules in turn.
func (asm *assembler) guards(a *arch, v verdict) label {
	no := asm.ret(v.action)
	for _, r := range slices.Backward(v.rules) {
		yes := asm.ret(r.action)
		for _, c := range slices.Backward(r.args) {
			yes = asm.condition(a, c, yes, no)
		}
		no = yes
	}
	return no
}

// condition emits the test of one argument.
func (asm *assembler) condition(a *arch, c specs.LinuxSeccompArg, yes, no label) label {
	low, high := uint32(dataArgs+8*c.Index), uint32(dataArgs+8*c.Index+4)
	if a.big {
		low, high = high, low
	}
	lowV, highV := uint32(c.Value), uint32(c.Value>>32)
	switch c.Op {
	case specs.OpNotEqual:
		yes, no = no, yes
	case specs.OpLessThan: // not >=
		yes, no = no, yes
	case specs.OpLessEqual: // not >
		yes, no = no, yes
	}
	switch c.Op {
	case specs.OpEqualTo, specs.OpNotEqual:
		at := asm.straight(opLoad, low, asm.branch(opJEQ, lowV, yes, no))
		if a.narrow {
			return at
		}
		return asm.straight(opLoad, high, asm.branch(opJEQ, highV, at, no))
	case specs.OpMaskedEqual:
		at := asm.masked(low, lowV, uint32(c.ValueTwo), yes, no)
		if a.narrow {
			return at
		}
		return asm.masked(high, highV, uint32(c.ValueTwo>>32), at, no)
	default: // an order
		op := uint16(opJGT)
		if c.Op == specs.OpGreaterEqual || c.Op == specs.OpLessThan {
			op = opJGE
		}
		at := asm.straight(opLoad, low, asm.branch(op, lowV, yes, no))
		if a.narrow {
			return at
		}
		at = asm.branch(opJEQ, highV, at, no)
		return asm.straight(opLoad, high, asm.branch(opJGT, highV, yes, at))
	}
}

// masked emits the test whether the word at off is want under mask.
func (asm *assembler) masked(off, mask, want uint32, yes, no label) label {
	switch {
	case want&^mask != 0:
		return no
	case mask == 0:
		return yes
	}
	at := asm.branch(opJEQ, want, yes, no)
	if mask != 0xffffffff {
		at = asm.straight(opAnd, mask, at)
	}
	return asm.straight(opLoad, off, at)
}
