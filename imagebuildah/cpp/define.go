package cpp

import (
	"bytes"
	"fmt"
	"slices"
)

// define obeys #define.
func (p *processor) define(f *file, at int, rest []byte) error {
	name, rest, err := f.operand(at, "define", rest)
	if err != nil {
		return err
	}
	m := &macro{}
	if len(rest) > 0 && rest[0] == '(' {
		m.function = true
		end := bytes.IndexByte(rest, ')')
		if end < 0 {
			return f.errorf(at, "#define %s: the parameters have no )", name)
		}
		if err := m.parameters(rest[1:end]); err != nil {
			return f.errorf(at, "#define %s: %v", name, err)
		}
		rest = rest[end+1:]
	}
	m.parse(bytes.TrimSpace(rest))
	if old := p.macros[name]; old != nil && !old.equal(m) {
		p.warn(f, at, name+" is defined anew; write #undef before")
	}
	p.macros[name] = m
	return nil
}

func (m *macro) equal(o *macro) bool {
	return m.builtin == nil && o.builtin == nil && m.function == o.function && m.variadic == o.variadic &&
		slices.Equal(m.params, o.params) && slices.Equal(m.body, o.body)
}

// maxParams bounds the parameters of a macro.
const maxParams = 1000

// parameters reads what stands between ( and ).
func (m *macro) parameters(list []byte) error {
	if len(bytes.TrimSpace(list)) == 0 {
		return nil
	}
	names := bytes.Split(list, []byte(","))
	if len(names) > maxParams {
		return fmt.Errorf("has more than %d parameters", maxParams)
	}
	for i, b := range names {
		name := string(bytes.TrimSpace(b))
		if i == len(names)-1 {
			if cut, ok := bytes.CutSuffix([]byte(name), []byte("...")); ok {
				m.variadic = true
				if name = string(bytes.TrimSpace(cut)); name == "" {
					name = "__VA_ARGS__"
				}
			}
		}
		if n := wordAt([]byte(name)); n == 0 || n != len(name) {
			return fmt.Errorf("%q is no name of a parameter", name)
		}
		if slices.Contains(m.params, name) {
			return fmt.Errorf("there are two parameters %s", name)
		}
		m.params = append(m.params, name)
	}
	return nil
}

// parse finds the parameters in the body.
func (m *macro) parse(body []byte) {
	var text []byte
	flush := func() {
		if len(text) > 0 {
			m.body = append(m.body, part{text: string(text), param: -1})
			text = nil
		}
	}
	var quote byte
	for len(body) > 0 {
		if body[0] == gap {
			body = body[1:]
			continue
		}
		n := wordAt(body)
		if n == 0 {
			n = quoteStep(body, &quote)
		} else if i := slices.Index(m.params, string(body[:n])); i >= 0 {
			flush()
			m.body = append(m.body, part{param: i, quote: quote})
			body = body[n:]
			continue
		}
		text = append(text, body[:n]...)
		body = body[n:]
	}
	flush()
}
