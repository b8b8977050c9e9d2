package cpp

import (
	"bytes"
	"slices"
	"strconv"
)

// maxNesting bounds calls of macros within arguments, and parentheses in #if.
const maxNesting = 200

// callWork is what an expansion counts for, besides its text.
const callWork = 32

// maxFrames bounds macros that stand for macros.
const maxFrames = 2000

// macro is what a name stands for.
type macro struct {
	function bool
	params   []string
	variadic bool // the last parameter takes what is left
	body     []part
	builtin  func(f *file) ([]byte, error)
	busy     int // expansions that are under way
}

// part is text of a body, or a parameter.
type part struct {
	text  string
	param int  // -1: text
	quote byte // the quotes that it lies in: the argument as it is written
}

// frame is text that is being read: a line, or what a macro stood for.
type frame struct {
	text  []byte
	pos   int
	macro *macro
}

// expander expands a line of f, or a text alone.
type expander struct {
	p      *processor
	f      *file
	start  int  // the line's number
	lines  bool // calls may go on in the next lines
	frames []frame
	quote  byte
	out    []byte
}

// expand replaces the macros in text. With lines it reads on in f for the
// arguments of a call. The line at is the one that messages name.
func (p *processor) expand(f *file, at int, text []byte, lines bool) ([]byte, error) {
	if p.nesting++; p.nesting > maxNesting {
		return nil, f.errorf(at, "macros are called within arguments more than %d deep", maxNesting)
	}
	defer func() { p.nesting-- }()
	e := &expander{p: p, f: f, start: at, lines: lines, frames: []frame{{text: text}}}
	for len(e.frames) > 0 {
		top := &e.frames[len(e.frames)-1]
		if top.pos == len(top.text) {
			e.pop()
			continue
		}
		rest := top.text[top.pos:]
		switch n := wordAt(rest); {
		case rest[0] == painted:
			n = 1 + wordAt(rest[1:])
			e.out = append(e.out, rest[:n]...)
			top.pos += n
		case n > 0 && e.quote == 0:
			top.pos += n
			if err := e.name(rest[:n]); err != nil {
				return nil, err
			}
		case n > 0:
			e.out = append(e.out, rest[:n]...)
			top.pos += n
		default:
			n = quoteStep(rest, &e.quote)
			for n < len(rest) && plain(rest[n]) {
				n++
			}
			e.out = append(e.out, rest[:n]...)
			top.pos += n
		}
		if len(e.out) > MaxOutput {
			return nil, f.errorf(e.start, "macros make more than %d MiB of this line", MaxOutput>>20)
		}
	}
	return e.out, nil
}

// plain reports bytes that mean nothing wherever they stand.
func plain(b byte) bool {
	return b > gap && b != '"' && b != '\'' && b != '\\' && !isLetter(b)
}

// quoteStep is the length of the next character, two behind a \, and keeps
// track of the quote it lies in.
func quoteStep(text []byte, quote *byte) int {
	switch b := text[0]; {
	case b == '\\' && len(text) > 1 && (text[1] == '\\' || text[1] == '"' || text[1] == '\''):
		return 2
	case *quote == 0 && (b == '"' || b == '\''):
		*quote = b
	case *quote == b:
		*quote = 0
	}
	return 1
}

func (e *expander) pop() {
	last := len(e.frames) - 1
	if m := e.frames[last].macro; m != nil {
		m.busy--
	}
	e.frames = e.frames[:last]
}

// name deals with a name outside of quotes, behind which the top frame stands.
func (e *expander) name(name []byte) error {
	if e.p.testing && string(name) == "defined" {
		e.defined()
		return nil
	}
	m := e.p.macros[string(name)]
	if m == nil {
		e.out = append(e.out, name...)
		return nil
	}
	if m.busy > 0 {
		e.out = append(append(e.out, painted), name...)
		return nil
	}
	var args [][]byte
	if m.function {
		var saved []frame
		if !e.lines {
			saved = slices.Clone(e.frames)
			if err := e.p.charge(e.f, e.start, callWork*len(saved)); err != nil {
				return err
			}
		}
		if !e.parenthesis() {
			e.out = append(e.out, name...)
			return nil
		}
		collected, ok, err := e.arguments(m)
		if err != nil {
			return err
		}
		if !ok {
			if e.lines {
				return e.f.errorf(e.start, "the call of the macro %s has no )", name)
			}
			// In a part of the text it is no call, yet it may become one.
			for _, fr := range saved[len(e.frames):] {
				if fr.macro != nil {
					fr.macro.busy++
				}
			}
			e.frames, e.quote = saved, 0
			e.out = append(e.out, name...)
			return nil
		}
		if args, err = e.match(string(name), m, collected); err != nil {
			return err
		}
	}
	text, err := e.replacement(m, args)
	if err != nil {
		return err
	}
	if err := e.p.charge(e.f, e.start, len(text)+callWork); err != nil {
		return err
	}
	if len(e.frames) > maxFrames {
		return e.f.errorf(e.start, "the macro %s stands for macros more than %d deep", name, maxFrames)
	}
	m.busy++
	e.frames = append(e.frames, frame{text: text, macro: m})
	return nil
}

// defined leaves the operand of defined, behind which the top frame stands, as
// it is.
func (e *expander) defined() {
	e.out = append(e.out, "defined"...)
	top := &e.frames[len(e.frames)-1]
	n := top.pos
	for n < len(top.text) && (isSpace(top.text[n]) || top.text[n] == '(') {
		n++
	}
	e.out = append(append(e.out, top.text[top.pos:n]...), painted)
	top.pos = n + wordAt(top.text[n:])
	e.out = append(e.out, top.text[n:top.pos]...)
}

// parenthesis moves behind the ( that comes next, if one does.
func (e *expander) parenthesis() bool {
	for i := len(e.frames) - 1; i >= 0; i-- {
		fr := e.frames[i]
		for fr.pos < len(fr.text) && isSpace(fr.text[fr.pos]) {
			fr.pos++
		}
		if fr.pos == len(fr.text) {
			continue
		}
		if fr.text[fr.pos] != '(' {
			return false
		}
		for len(e.frames) > i+1 {
			e.pop()
		}
		e.frames[i].pos = fr.pos + 1
		return true
	}
	if !e.lines {
		return false
	}
	rest := bytes.TrimLeft(e.f.rest, " \t\r\n\v\f")
	if len(rest) == 0 || rest[0] != '(' {
		return false
	}
	for len(e.frames) > 1 {
		e.pop()
	}
	skipped := e.f.rest[:len(e.f.rest)-len(rest)]
	e.f.line += bytes.Count(skipped, []byte("\n"))
	e.f.rest = rest
	line, err := e.f.logical()
	if err != nil {
		return false // the comment that is wrong is met again
	}
	e.frames[0] = frame{text: line, pos: 1}
	return true
}

// arguments reads up to the ) of a call; false: there is none.
func (e *expander) arguments(m *macro) ([][]byte, bool, error) {
	var args [][]byte
	arg := []byte{}
	depth, read := 0, 0
	for {
		if len(e.frames) == 0 {
			return nil, false, e.p.charge(e.f, e.start, read)
		}
		top := &e.frames[len(e.frames)-1]
		if top.pos == len(top.text) {
			if len(e.frames) > 1 || !e.lines {
				e.pop()
				continue
			}
			if len(e.f.rest) == 0 {
				return nil, false, nil
			}
			line, err := e.f.logical()
			if err != nil {
				return nil, false, err
			}
			arg = append(arg, ' ')
			e.frames[0] = frame{text: line}
			continue
		}
		rest := top.text[top.pos:]
		quoted := e.quote != 0
		n := quoteStep(rest, &e.quote)
		top.pos += n
		read += n
		switch b := rest[0]; {
		case b == splice:
			continue
		case quoted || e.quote != 0:
		case b == '(':
			depth++
		case b == ')' && depth > 0:
			depth--
		case b == ')':
			return append(args, arg), true, e.p.charge(e.f, e.start, read)
		case b == ',' && depth == 0 && (!m.variadic || len(args) < len(m.params)-1):
			args = append(args, arg)
			arg = []byte{}
			continue
		}
		arg = append(arg, rest[:n]...)
	}
}

// match compares the arguments with the parameters.
func (e *expander) match(name string, m *macro, args [][]byte) ([][]byte, error) {
	switch {
	case len(m.params) == 0 && len(args) == 1 && len(bytes.TrimSpace(args[0])) == 0:
		return nil, nil
	case m.variadic && len(args) == len(m.params)-1:
		return append(args, nil), nil
	case len(args) != len(m.params):
		return nil, e.f.errorf(e.start, "the macro %s has %d arguments, and is called with %d", name, len(m.params), len(args))
	}
	return args, nil
}

// replacement is the body with the arguments in it, each expanded by itself
// unless it lies within quotes.
func (e *expander) replacement(m *macro, args [][]byte) ([]byte, error) {
	if m.builtin != nil {
		return m.builtin(e.f)
	}
	expanded := make([][]byte, len(args))
	var out []byte
	for _, part := range m.body {
		switch {
		case part.param < 0:
			out = append(out, part.text...)
		case part.quote != 0:
			for _, b := range args[part.param] {
				if b == '"' && part.quote == '"' {
					out = append(out, '\\')
				}
				if b != painted && b != gap {
					out = append(out, b)
				}
			}
		default:
			if expanded[part.param] == nil {
				text, err := e.p.expand(e.f, e.start, args[part.param], false)
				if err != nil {
					return nil, err
				}
				expanded[part.param] = append([]byte{}, text...)
			}
			out = append(out, expanded[part.param]...)
		}
		if len(out) > MaxOutput {
			return nil, e.f.errorf(e.start, "macros make more than %d MiB of this line", MaxOutput>>20)
		}
	}
	return out, nil
}

// builtins are the macros that need no #define.
func (p *processor) builtins() {
	number := func(get func(f *file) int) *macro {
		return &macro{builtin: func(f *file) ([]byte, error) { return strconv.AppendInt(nil, int64(get(f)), 10), nil }}
	}
	counter := -1
	p.macros["__LINE__"] = number(func(f *file) int { return f.line })
	p.macros["__INCLUDE_LEVEL__"] = number(func(f *file) int { return f.depth })
	p.macros["__COUNTER__"] = number(func(*file) int { counter++; return counter })
	p.macros["__FILE__"] = &macro{builtin: func(f *file) ([]byte, error) { return strconv.AppendQuote(nil, f.name), nil }}
	p.macros["__BASE_FILE__"] = &macro{builtin: func(*file) ([]byte, error) { return strconv.AppendQuote(nil, p.Name), nil }}
	for _, name := range []string{"__DATE__", "__TIME__", "__TIMESTAMP__"} {
		p.macros[name] = &macro{builtin: func(f *file) ([]byte, error) {
			return nil, f.errorf(f.line, "%s is not there, for no two builds would be the same; give the value with --cpp-flag=-DNAME=VALUE", name)
		}}
	}
}
