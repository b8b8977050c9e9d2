package imagebuildah

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
)

// parseChmod reads --chmod: octal digits, or the clauses of chmod(1)
// ("u=rwX,go=rX"; a clause without u, g, o or a is for all). It returns what
// becomes of a mode, nil for "".
func parseChmod(text string) (func(fs.FileMode) fs.FileMode, error) {
	if text == "" {
		return nil, nil
	}
	if n, err := strconv.ParseUint(text, 8, 16); err == nil && n <= 0o7777 {
		mode := fromUnix(uint32(n))
		return func(fs.FileMode) fs.FileMode { return mode }, nil
	}
	var steps []chmodStep
	for _, clause := range strings.Split(text, ",") {
		s, ok := parseClause(clause)
		if !ok {
			return nil, fmt.Errorf("--chmod=%s: want octal digits such as 0755, or clauses such as u=rwX,go=rX: %w", text, define.ErrInvalid)
		}
		steps = append(steps, s...)
	}
	return func(m fs.FileMode) fs.FileMode {
		bits := toUnix(m)
		for _, s := range steps {
			bits = s.apply(bits, m.IsDir())
		}
		return m.Type() | fromUnix(bits)
	}, nil
}

// chmodStep is one operator of a clause with its permissions.
type chmodStep struct {
	who   uint32 // mask of the bits that the clause is about
	op    byte
	perms string
}

func parseClause(clause string) ([]chmodStep, bool) {
	i := 0
	var who uint32
	for ; i < len(clause) && strings.IndexByte("ugoa", clause[i]) >= 0; i++ {
		who |= map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[clause[i]]
	}
	if who == 0 {
		who = 0o7777
	}
	var steps []chmodStep
	for i < len(clause) {
		op := clause[i]
		if strings.IndexByte("+-=", op) < 0 {
			return nil, false
		}
		end := i + 1
		for end < len(clause) && strings.IndexByte("rwxXst", clause[end]) >= 0 {
			end++
		}
		steps = append(steps, chmodStep{who, op, clause[i+1 : end]})
		i = end
	}
	return steps, len(steps) > 0
}

// apply changes the mode bits. X is execution for directories and for what
// somebody may execute already.
func (s chmodStep) apply(mode uint32, dir bool) uint32 {
	var bits uint32
	for _, p := range []byte(s.perms) {
		switch p {
		case 'r':
			bits |= 0o444
		case 'w':
			bits |= 0o222
		case 'x':
			bits |= 0o111
		case 'X':
			if dir || mode&0o111 != 0 {
				bits |= 0o111
			}
		case 's':
			bits |= 0o6000
		case 't':
			bits |= 0o1000
		}
	}
	bits &= s.who
	switch s.op {
	case '+':
		return mode | bits
	case '-':
		return mode &^ bits
	}
	cleared := s.who & 0o777
	if !dir { // a directory keeps its set-id bits unless they are named
		cleared = s.who
	}
	return mode&^cleared | bits
}

var specialBits = map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

func fromUnix(n uint32) fs.FileMode {
	mode := fs.FileMode(n & 0o777)
	for bit, m := range specialBits {
		if n&bit != 0 {
			mode |= m
		}
	}
	return mode
}

func toUnix(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	for bit, special := range specialBits {
		if m&special != 0 {
			n |= bit
		}
	}
	return n
}
