package seccomp

import (
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Asked names the calls that a program asks its listener about
// (SECCOMP_RET_USER_NOTIF, Linux 5.0).
type Asked struct {
	// Native are those of the host's own architecture, Compat those of the
	// others that its kernel runs. Names that an architecture lacks are ignored.
	Native, Compat []string
	// When has conditions, by name: only calls with one of the bits in the
	// argument are asked about. The bits are those of 32-bit flags, which are the
	// same on all architectures that one kernel runs. Where the profile has
	// conditions of its own for the call, all calls are asked about.
	When map[string]Bits
}

// Bits are some bits of an argument.
type Bits struct {
	Index uint // 0 to 5
	Mask  uint32
}

// asking is what a program asks about on one architecture.
type asking struct {
	names []string
	when  map[string]Bits
}

// CompileAsking is Compile for a program with a listener, which decides about
// the calls of ask where p would allow them; what p denies stays denied. A nil
// p allows everything else, on all architectures of the host.
func CompileAsking(p *specs.LinuxSeccomp, ask Asked) ([]byte, error) {
	if p == nil {
		h, _ := hostFor(runtime.GOARCH)
		p = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
		for i := range h.runs {
			p.Architectures = append(p.Architectures, h.runs[i].name)
		}
	}
	prog, err := compileAsking(p, runtime.GOARCH, ask.on)
	if err != nil {
		return nil, err
	}
	return encode(prog), nil
}

func (k *Asked) names(native bool) []string {
	if native {
		return k.Native
	}
	return k.Compat
}

func (k *Asked) on(native bool) asking { return asking{k.names(native), k.When} }

// Call is a system call as a notification names it: the AUDIT_ARCH_* of the
// caller and the number.
type Call struct{ Arch, Number uint32 }

// CallName is what a Call means.
type CallName struct {
	Name string
	// Narrow: the arguments have 32 bits, and calls without "32" in their names
	// that have such a sibling take ids of 16 bits.
	Narrow bool
}

// Calls lists the calls of ask by what a notification names them.
func (k *Asked) Calls() map[Call]CallName {
	h, _ := hostFor(runtime.GOARCH)
	list := map[Call]CallName{}
	for i := range h.runs {
		a := &h.runs[i]
		for _, name := range k.names(i == 0) {
			if nr, ok := a.number(name); ok {
				list[Call{a.audit, nr}] = CallName{name, a.narrow}
			}
		}
	}
	return list
}
