package cpp

import (
	"bytes"
	"slices"
	"strings"
)

// Bytes with a meaning of their own in text that is being worked on; a file
// that holds them is refused.
const (
	// painted stands before a name that is not expanded any more.
	painted = 0
	// splice stands where a line went on behind a \.
	splice = 1
	// gap stands for a comment between two names.
	gap = 2
	// marks are these.
	marks = "\x00\x01\x02"
)

// lookahead bounds the search for the word behind a #.
const lookahead = 1 << 10

// file is one file while it is read.
type file struct {
	name  string // for messages
	path  string // below the root
	dir   string // where its #include "name" looks first
	depth int
	rest  []byte // what was not read yet
	line  int    // lines read
	conds []condition
}

func isLetter(b byte) bool {
	return b == '_' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isSpace(b byte) bool {
	return b == ' ' || b == '\t' || b == '\r' || b == '\v' || b == '\f' || b == splice || b == gap
}

// wordAt is the length of the name that text begins with.
func wordAt(text []byte) int {
	if len(text) == 0 || !isLetter(text[0]) {
		return 0
	}
	n := 1
	for n < len(text) && (isLetter(text[n]) || isDigit(text[n])) {
		n++
	}
	return n
}

// spliceAt is the length of a \ and the end of the line behind it, between
// which there may be spaces, or 0.
func spliceAt(text []byte) int {
	if text[0] != '\\' {
		return 0
	}
	for n := 1; n < len(text); n++ {
		switch text[n] {
		case '\n':
			return n + 1
		case ' ', '\t', '\r':
		default:
			return 0
		}
	}
	return 0
}

// directives are the words that make a line that begins with # one of ours.
var directives = []string{"define", "undef", "include", "include_next", "import", "if", "ifdef", "ifndef", "elif", "elifdef",
	"elifndef", "else", "endif", "error", "warning", "line", "pragma"}

// directive is the word behind the # that the next line begins with, if it is
// one of directives.
func (f *file) directive() string {
	if len(f.rest) == 0 || f.rest[0] != '#' {
		return ""
	}
	text := f.rest[1:min(len(f.rest), lookahead)]
	var word []byte
	for len(text) > 0 {
		if n := spliceAt(text); n > 0 {
			text = text[n:]
			continue
		}
		b := text[0]
		if len(word) == 0 && bytes.HasPrefix(text, []byte("/*")) {
			end := bytes.Index(text[2:], []byte("*/"))
			if end < 0 {
				return ""
			}
			text = text[2+end+2:]
			continue
		}
		if !isLetter(b) && !isDigit(b) {
			if len(word) > 0 || b != ' ' && b != '\t' {
				break
			}
			text = text[1:]
			continue
		}
		word = append(word, b)
		text = text[1:]
	}
	if slices.Contains(directives, string(word)) {
		return string(word)
	}
	return ""
}

// physical reads a line as it is, with its newline.
func (f *file) physical() []byte {
	n := bytes.IndexByte(f.rest, '\n') + 1
	if n == 0 {
		n = len(f.rest)
	}
	l := f.rest[:n]
	f.rest = f.rest[n:]
	f.line++
	return l
}

// logical reads a line without its newline and comments, joined with those
// that it goes on in; where they are joined stays a splice, unless that is
// within a name.
func (f *file) logical() ([]byte, error) {
	var out []byte
	var quote byte
	f.line++
	first := f.line
	for len(f.rest) > 0 {
		b := f.rest[0]
		if n := spliceAt(f.rest); n > 0 {
			f.rest = f.rest[n:]
			f.line++
			if len(out) == 0 || len(f.rest) == 0 || !isLetter(out[len(out)-1]) || !isLetter(f.rest[0]) {
				out = append(out, splice)
				if word := f.directive(); quote == 0 && word != "" && f.rest[1] == word[0] {
					return nil, f.errorf(f.line, "#%s behind a line that ends in \\ is no directive; end that line, or begin this one with a space", word)
				}
			}
			continue
		}
		switch {
		case b == '\n':
			f.rest = f.rest[1:]
			return out, nil
		case b <= gap:
			return nil, f.errorf(f.line, "holds the byte %#02x; is it text?", b)
		case b == '\\' && len(f.rest) > 1 && strings.IndexByte(`\"'`, f.rest[1]) >= 0 && spliceAt(f.rest[1:]) == 0:
			out = append(out, b, f.rest[1])
			f.rest = f.rest[2:]
			continue
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == '"' || b == '\'':
			quote = b
		case b == '/' && len(f.rest) > 1 && f.rest[1] == '*':
			end := bytes.Index(f.rest[2:], []byte("*/"))
			if end < 0 {
				return nil, f.errorf(f.line, "the comment that /* begins has no */; quote the /* if it is a path (line %d)", first)
			}
			f.line += bytes.Count(f.rest[:end+2], []byte("\n"))
			f.rest = f.rest[end+4:]
			if len(out) > 0 && len(f.rest) > 0 && (isLetter(f.rest[0]) || isDigit(f.rest[0])) && (isLetter(out[len(out)-1]) || isDigit(out[len(out)-1])) {
				out = append(out, gap)
			}
			continue
		}
		out = append(out, b)
		f.rest = f.rest[1:]
	}
	return out, nil
}

// dropSplices joins a line, as directives are read.
func dropSplices(line []byte) []byte {
	if bytes.IndexByte(line, splice) < 0 {
		return line
	}
	return slices.DeleteFunc(line, func(b byte) bool { return b == splice })
}
