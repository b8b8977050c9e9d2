package seccomp

import (
	"encoding/binary"
	"fmt"

	"github.com/stratabuild/strata/define"
)

// insn is struct sock_filter (uapi/linux/filter.h).
type insn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// The instructions of classic BPF that seccomp needs: class, size or
// operation, mode or source.
const (
	opLoad = 0x20 // BPF_LD  | BPF_W   | BPF_ABS
	opAnd  = 0x54 // BPF_ALU | BPF_AND | BPF_K
	opJA   = 0x05 // BPF_JMP | BPF_JA
	opJEQ  = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	opJGT  = 0x25 // BPF_JMP | BPF_JGT | BPF_K
	opJGE  = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	opRet  = 0x06 // BPF_RET | BPF_K
)

// maxInsns is BPF_MAXINSNS, the kernel's limit for one program.
const maxInsns = 4096

// label is an instruction's place, counted from the program's end (the last
// instruction is 1).
type label int

// assembler builds a program from its end to its beginning: BPF jumps go
// forward only, so that every target is known when a jump is made.
type assembler struct {
	rev  []insn // the last instruction first
	rets map[uint32]label
}

func (a *assembler) emit(i insn) label {
	a.rev = append(a.rev, i)
	return label(len(a.rev))
}

// ret returns the place of an instruction that ends the program with v.
func (a *assembler) ret(v uint32) label {
	if l, ok := a.rets[v]; ok {
		return l
	}
	return a.newRet(v)
}

func (a *assembler) newRet(v uint32) label {
	l := a.emit(insn{code: opRet, k: v})
	a.rets[v] = l
	return l
}

// near returns a place from which l is reached and that the next few
// instructions can reach with the 8 bits of a conditional jump.
func (a *assembler) near(l label) label {
	if len(a.rev)-int(l) < 250 {
		return l
	}
	if i := a.rev[l-1]; i.code == opRet {
		// A shared ret that has become far: from here on share this one.
		return a.newRet(i.k)
	}
	return a.jump(l)
}

func (a *assembler) jump(l label) label {
	return a.emit(insn{code: opJA, k: uint32(len(a.rev) - int(l))})
}

// branch compares the accumulator with k.
func (a *assembler) branch(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes = a.near(yes)
	no = a.near(no)
	n := len(a.rev)
	return a.emit(insn{code: op, jt: uint8(n - int(yes)), jf: uint8(n - int(no)), k: k})
}

// straight emits an instruction that goes on to next.
func (a *assembler) straight(op uint16, k uint32, next label) label {
	if int(next) != len(a.rev) {
		a.jump(next)
	}
	return a.emit(insn{code: op, k: k})
}

// program returns the instructions in the order of their execution.
func (a *assembler) program() ([]insn, error) {
	n := len(a.rev)
	if n > maxInsns {
		return nil, fmt.Errorf("seccomp profile compiles to %d BPF instructions, the kernel takes %d: use fewer rules with arguments: %w", n, maxInsns, define.ErrInvalid)
	}
	out := make([]insn, n)
	for i, in := range a.rev {
		out[n-1-i] = in
	}
	return out, nil
}

// encode lays the instructions out as an array of struct sock_filter.
func encode(prog []insn) []byte {
	out := make([]byte, 0, 8*len(prog))
	for _, i := range prog {
		out = binary.NativeEndian.AppendUint16(out, i.code)
		out = append(out, i.jt, i.jf)
		out = binary.NativeEndian.AppendUint32(out, i.k)
	}
	return out
}
