package cpp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// value is a number of #if: intmax_t or uintmax_t of C.
type value struct {
	bits     uint64
	unsigned bool
}

func number(b bool) value {
	if b {
		return value{bits: 1}
	}
	return value{}
}

// evaluate is whether the expression of an #if is not 0.
func (p *processor) evaluate(f *file, at int, text []byte) (bool, error) {
	if len(text) == 0 {
		return false, f.errorf(at, "#if without an expression")
	}
	text, err := p.hasInclude(f, at, text)
	if err != nil {
		return false, err
	}
	p.testing = true
	text, err = p.expand(f, at, text, false)
	p.testing = false
	if err != nil {
		return false, err
	}
	x := &expression{p: p, rest: bytes.ReplaceAll(text, []byte{painted}, nil), live: true}
	v, err := x.ternary()
	for err == nil && x.accept(",") {
		v, err = x.ternary()
	}
	if x.space(); err == nil && len(x.rest) > 0 {
		err = fmt.Errorf("an operator is missing before %s", x.rest)
	}
	if err != nil {
		return false, f.errorf(at, "#if: %v; a comment that begins with if is a directive to the preprocessor", err)
	}
	return v.bits != 0, nil
}

// defined is what defined and #ifdef say.
func (p *processor) defined(name string) bool {
	return p.macros[name] != nil || name == "__has_include"
}

// hasInclude replaces __has_include, whose operand is not expanded, by a
// number.
func (p *processor) hasInclude(f *file, at int, text []byte) ([]byte, error) {
	var out []byte
	var quote byte
	for len(text) > 0 {
		n := wordAt(text)
		word := string(text[:n])
		switch {
		case n == 0:
			n = quoteStep(text, &quote)
		case quote != 0:
		case word == "__has_include":
			rest := bytes.TrimLeft(text[n:], " \t")
			if !bytes.HasPrefix(rest, []byte("(")) {
				break // of defined
			}
			end := bytes.IndexByte(rest, ')')
			if end < 0 {
				return nil, f.errorf(at, "#if: __has_include( has no )")
			}
			name, quoted, ok := target(bytes.TrimSpace(rest[1:end]))
			if !ok {
				return nil, f.errorf(at, "#if: __has_include wants (\"FILE\") or (<FILE>)")
			}
			from := *f
			from.line = at
			_, _, err := p.find(&from, name, quoted)
			if err != nil && p.work > maxWork {
				return nil, err
			}
			out = append(out, ' ', '0'+byte(number(err == nil).bits), ' ')
			text = rest[end+1:]
			continue
		}
		out = append(out, text[:n]...)
		text = text[n:]
	}
	return out, nil
}

// definedOperand reads NAME or (NAME).
func definedOperand(text []byte) (name string, rest []byte, ok bool) {
	text = bytes.TrimLeft(text, " \t")
	inside, parenthesis := bytes.CutPrefix(text, []byte("("))
	if parenthesis {
		text = bytes.TrimLeft(inside, " \t")
	}
	n := wordAt(text)
	if n == 0 {
		return "", nil, false
	}
	name, rest = string(text[:n]), text[n:]
	if parenthesis {
		rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, " \t"), []byte(")"))
		return name, rest, ok
	}
	return name, rest, true
}

// expression is an expression that is read from left to right.
type expression struct {
	p     *processor
	rest  []byte
	depth int
	live  bool // its value counts: 1 || 1/0 is no error
}

func (x *expression) space() {
	for len(x.rest) > 0 && isSpace(x.rest[0]) {
		x.rest = x.rest[1:]
	}
}

func (x *expression) accept(op string) bool {
	x.space()
	if !bytes.HasPrefix(x.rest, []byte(op)) {
		return false
	}
	x.rest = x.rest[len(op):]
	return true
}

// binary are the operators by how tightly they bind.
var binary = [][]string{{"||"}, {"&&"}, {"|"}, {"^"}, {"&"}, {"==", "!="}, {"<=", ">=", "<", ">"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}}

// ternary reads CONDITION ? VALUE : VALUE, or what binds tighter.
func (x *expression) ternary() (value, error) {
	if x.depth++; x.depth > maxNesting {
		return value{}, fmt.Errorf("it is nested more than %d deep", maxNesting)
	}
	defer func() { x.depth-- }()
	c, err := x.level(0)
	if err != nil || !x.accept("?") {
		return c, err
	}
	live := x.live
	x.live = live && c.bits != 0
	a, err := x.ternary()
	if err != nil {
		return a, err
	}
	if !x.accept(":") {
		return a, errors.New("the ? has no :")
	}
	x.live = live && c.bits == 0
	b, err := x.ternary()
	x.live = live
	unsigned := a.unsigned || b.unsigned
	if c.bits != 0 {
		b = a
	}
	b.unsigned = unsigned
	return b, err
}

// operator is the binary operator that comes next, if it is one of ops.
func (x *expression) operator(ops []string) string {
	x.space()
	for _, op := range ops {
		rest, ok := bytes.CutPrefix(x.rest, []byte(op))
		if !ok {
			continue
		}
		// | is not the beginning of ||, nor < that of <<.
		if len(op) == 1 && len(rest) > 0 && (rest[0] == op[0] && strings.Contains("|&<>", op) || rest[0] == '=' && strings.Contains("<>", op)) {
			continue
		}
		x.rest = rest
		return op
	}
	return ""
}

// level reads operators of binary[n] and what binds tighter.
func (x *expression) level(n int) (value, error) {
	if n == len(binary) {
		return x.unary()
	}
	a, err := x.level(n + 1)
	for err == nil {
		op := x.operator(binary[n])
		if op == "" {
			return a, nil
		}
		live := x.live
		x.live = live && (op != "||" || a.bits == 0) && (op != "&&" || a.bits != 0)
		var b value
		b, err = x.level(n + 1)
		x.live = live
		if err == nil {
			a, err = x.apply(op, a, b)
		}
	}
	return a, err
}

// apply is a op b, with the conversions of C.
func (x *expression) apply(op string, a, b value) (value, error) {
	unsigned := a.unsigned || b.unsigned
	less := func(a, b value) value {
		if unsigned {
			return number(a.bits < b.bits)
		}
		return number(int64(a.bits) < int64(b.bits))
	}
	out := value{unsigned: unsigned}
	switch op {
	case "||":
		return number(a.bits != 0 || b.bits != 0), nil
	case "&&":
		return number(a.bits != 0 && b.bits != 0), nil
	case "==":
		return number(a.bits == b.bits), nil
	case "!=":
		return number(a.bits != b.bits), nil
	case "<":
		return less(a, b), nil
	case ">":
		return less(b, a), nil
	case "<=":
		return number(less(b, a).bits == 0), nil
	case ">=":
		return number(less(a, b).bits == 0), nil
	case "<<", ">>":
		return shift(a, b, op == "<<"), nil
	case "|":
		out.bits = a.bits | b.bits
	case "^":
		out.bits = a.bits ^ b.bits
	case "&":
		out.bits = a.bits & b.bits
	case "+":
		out.bits = a.bits + b.bits
	case "-":
		out.bits = a.bits - b.bits
	case "*":
		out.bits = a.bits * b.bits
	default:
		return x.divide(op, a, b, out)
	}
	return out, nil
}

func (x *expression) divide(op string, a, b, out value) (value, error) {
	switch {
	case b.bits == 0 && x.live:
		return out, errors.New("division by zero")
	case b.bits == 0:
	case out.unsigned && op == "/":
		out.bits = a.bits / b.bits
	case out.unsigned:
		out.bits = a.bits % b.bits
	case op == "/":
		out.bits = uint64(int64(a.bits) / int64(b.bits))
	default:
		out.bits = uint64(int64(a.bits) % int64(b.bits))
	}
	return out, nil
}

// shift shifts by b; by less than 0, the other way.
func shift(a, b value, left bool) value {
	n := b.bits
	if !b.unsigned && int64(n) < 0 {
		left, n = !left, -n
	}
	switch {
	case left:
		a.bits <<= n
	case a.unsigned:
		a.bits >>= n
	default:
		a.bits = uint64(int64(a.bits) >> n)
	}
	return a
}

// unary reads signs, parentheses and numbers.
func (x *expression) unary() (value, error) {
	if x.depth++; x.depth > maxNesting {
		return value{}, fmt.Errorf("it is nested more than %d deep", maxNesting)
	}
	defer func() { x.depth-- }()
	x.space()
	if len(x.rest) == 0 {
		return value{}, errors.New("a value is missing at the end")
	}
	switch b := x.rest[0]; b {
	case '!', '-', '~', '+':
		x.rest = x.rest[1:]
		v, err := x.unary()
		switch b {
		case '!':
			v = number(v.bits == 0)
		case '-':
			v.bits = -v.bits
		case '~':
			v.bits = ^v.bits
		}
		return v, err
	case '(':
		x.rest = x.rest[1:]
		v, err := x.ternary()
		for err == nil && x.accept(",") {
			v, err = x.ternary()
		}
		if err == nil && !x.accept(")") {
			err = errors.New("a ) is missing")
		}
		return v, err
	case '\'':
		return x.character()
	}
	return x.word()
}

// word reads a number or a name: one that is no macro is 0.
func (x *expression) word() (value, error) {
	if n := wordAt(x.rest); n > 0 {
		name := string(x.rest[:n])
		x.rest = x.rest[n:]
		if name != "defined" {
			return value{}, nil
		}
		name, rest, ok := definedOperand(x.rest)
		if !ok {
			return value{}, errors.New("defined wants a name, or a name in parentheses")
		}
		x.rest = rest
		return number(x.p.defined(name)), nil
	}
	n := 0
	for n < len(x.rest) && (isDigit(x.rest[n]) || isLetter(x.rest[n]) || n > 0 && x.rest[n] == '.') {
		n++
	}
	if n == 0 {
		return value{}, fmt.Errorf("%q is no value", x.rest[:1])
	}
	text := strings.ToLower(string(x.rest[:n]))
	x.rest = x.rest[n:]
	digits := strings.TrimRight(text, "ul")
	suffix := text[len(digits):]
	switch suffix {
	case "", "u", "l", "ul", "lu", "ll", "ull", "llu":
	default:
		return value{}, fmt.Errorf("%s is no integer", text)
	}
	bits, err := strconv.ParseUint(digits, 0, 64)
	if err != nil || strings.Contains(text, "_") || strings.HasPrefix(text, "0o") {
		return value{}, fmt.Errorf("%s is no integer of 64 bits", text)
	}
	return value{bits: bits, unsigned: strings.Contains(suffix, "u") || bits>>63 != 0}, nil
}

// character reads 'c'.
func (x *expression) character() (value, error) {
	end := 2
	if len(x.rest) > 1 && x.rest[1] == '\\' {
		end = 3
	}
	for end < len(x.rest) && x.rest[end] != '\'' {
		end++
	}
	if end >= len(x.rest) {
		return value{}, errors.New("the ' has no other '")
	}
	text := string(x.rest[1:end])
	x.rest = x.rest[end+1:]
	if text == `\0` {
		return value{}, nil
	}
	r, _, tail, err := strconv.UnquoteChar(text, '\'')
	if err != nil || tail != "" || r > 0x7f {
		return value{}, fmt.Errorf("'%s' is no character of ASCII", text)
	}
	return value{bits: uint64(r)}, nil
}
