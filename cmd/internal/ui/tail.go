package ui

import (
	"bytes"
)

const (
	// TailLines is how many lines of a step's output are kept for the report
	// of its failure.
	TailLines = 20
	// MaxLine is the longest line that is kept, in bytes; the rest is cut.
	MaxLine = 2000
)

// tail keeps the last lines of a stream in bounded memory. Its cost does not
// grow with what is written: of a large chunk only the end is looked at.
type tail struct {
	lines   []string // at most TailLines, oldest first
	partial []byte   // the line that has no end yet, at most MaxLine
	cut     bool     // partial is longer than what is kept of it
}

func (t *tail) Write(p []byte) {
	p = t.skip(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			t.extend(p)
			return
		}
		t.extend(p[:i])
		t.end()
		p = p[i+1:]
	}
}

// skip drops all but the last TailLines complete lines of p.
func (t *tail) skip(p []byte) []byte {
	at := len(p)
	for range TailLines + 1 {
		i := bytes.LastIndexByte(p[:at], '\n')
		if i < 0 {
			return p
		}
		at = i
	}
	t.lines, t.partial, t.cut = t.lines[:0], t.partial[:0], false
	return p[at+1:]
}

func (t *tail) extend(p []byte) {
	room := MaxLine - len(t.partial)
	if len(p) > room {
		p, t.cut = p[:room], true
	}
	t.partial = append(t.partial, p...)
}

func (t *tail) end() {
	if len(t.lines) >= TailLines {
		copy(t.lines, t.lines[1:])
		t.lines = t.lines[:TailLines-1]
	}
	t.lines = append(t.lines, t.current())
	t.partial, t.cut = t.partial[:0], false
}

func (t *tail) current() string {
	if t.cut {
		return string(t.partial) + "..."
	}
	return string(t.partial)
}

// Last returns the last n lines, a line without its end included, as text
// that is safe to draw.
func (t *tail) Last(n int) []string {
	all := t.lines
	if len(t.partial) > 0 {
		all = append(all[:len(all):len(all)], t.current())
	}
	if len(all) > n {
		all = all[len(all)-n:]
	}
	out := make([]string, len(all))
	for i, l := range all {
		out[i] = drawable(l)
	}
	return out
}

// drawable turns a line of a program's output into what a terminal would
// show of it: what a carriage return overwrites is left out, colours and
// other escape sequences are removed, tabs become spaces.
func drawable(s string) string {
	b := bytes.TrimRight([]byte(s), "\r")
	if i := bytes.LastIndexByte(b, '\r'); i >= 0 {
		b = b[i+1:]
	}
	b = bytes.ReplaceAll(stripSequences(b), []byte("\t"), []byte("    "))
	return Clean(string(b))
}

// stripSequences removes escape sequences (ECMA-48: ESC, intermediate bytes,
// final byte; CSI; and OSC strings up to BEL or ST).
func stripSequences(b []byte) []byte {
	if bytes.IndexByte(b, 0x1b) < 0 {
		return b
	}
	out := b[:0:0]
	for i := 0; i < len(b); i++ {
		if b[i] != 0x1b {
			out = append(out, b[i])
			continue
		}
		i++
		if i >= len(b) {
			break
		}
		switch b[i] {
		case '[':
			for i++; i < len(b) && (b[i] < 0x40 || b[i] > 0x7e); i++ {
			}
		case ']', 'P', 'X', '^', '_':
			for i++; i < len(b) && b[i] != 0x07; i++ {
				if b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\' {
					i++
					break
				}
			}
		default:
			for i < len(b) && b[i] >= 0x20 && b[i] <= 0x2f {
				i++
			}
		}
	}
	return out
}
