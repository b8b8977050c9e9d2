package cpp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Bounds of a build file, which may be hostile.
const (
	// MaxOutput bounds the result, in bytes.
	MaxOutput = 64 << 20
	// MaxDepth bounds files that include files.
	MaxDepth = 64
	// maxWork bounds, in bytes, what macros make on the way to the result and
	// what is included. Each file counts for fileWork at least.
	maxWork  = 64 << 20
	fileWork = 4 << 10
)

// Options say how a file is read.
type Options struct {
	// Name is the file's, for messages and __FILE__.
	Name string
	// Dir is the directory below the root that the file lies in; "" is the
	// root. What it includes is looked for in the root, then there.
	Dir   string
	Flags Flags
	// Read reads a file below the root, which it must not leave; path is
	// relative, clean, and begins with no "..". fs.ErrNotExist makes the next
	// directory be tried. Without Read nothing can be included.
	Read func(path string) ([]byte, error)
}

// processor is one run.
type processor struct {
	Options
	macros   map[string]*macro
	out      bytes.Buffer
	outLines int
	work     int
	nesting  int
	testing  bool // the expression of an #if is being expanded
	once     map[string]bool
	warnings []string
	check    func() error
}

func newProcessor(o Options) *processor {
	p := &processor{Options: o, macros: map[string]*macro{}, once: map[string]bool{}, check: func() error { return nil }}
	p.builtins()
	return p
}

// Process is content after the directives and macros in it have done their
// work, and what #warning and redefinitions had to say. Errors begin with the
// name and line of the file they are about, and wrap define.ErrInvalid,
// define.ErrNotFound for a file to include that does not exist,
// define.ErrEscape for one outside of the root, or what Read returned.
func Process(ctx context.Context, o Options, content []byte) (out []byte, warnings []string, err error) {
	p := newProcessor(o)
	p.check = func() error { return context.Cause(ctx) }
	for _, line := range o.Flags.lines {
		// Each by itself: a \ at the end would join it with the next.
		if err := p.file(&file{name: "--cpp-flag", rest: []byte(line), depth: 1}); err != nil {
			return nil, nil, err
		}
	}
	f := &file{name: o.Name, path: o.Name, rest: content}
	for _, name := range o.Flags.include {
		if err := p.include(&file{name: "--cpp-flag=-include", line: 1}, name, true); err != nil {
			return nil, nil, err
		}
	}
	if len(bytes.TrimSpace(p.out.Bytes())) == 0 {
		p.out.Reset()
		p.outLines = 0
	}
	if err := p.file(f); err != nil {
		return nil, nil, err
	}
	return p.out.Bytes(), p.warnings, nil
}

func (f *file) errorf(line int, format string, args ...any) error {
	return f.failf(line, define.ErrInvalid, format, args...)
}

func (f *file) failf(line int, kind error, format string, args ...any) error {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	const longest = 500
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "..."
	}
	return fmt.Errorf("%s:%d: %s: %w", f.name, line, text, kind)
}

func (p *processor) charge(f *file, line, n int) error {
	if p.work += n; p.work > maxWork {
		return f.errorf(line, "macros and included files make more than %d MiB", maxWork>>20)
	}
	return nil
}

// condition is an #if whose #endif was not met yet.
type condition struct {
	line     int
	active   bool // what is read now counts
	done     bool // a branch was taken
	elsed    bool // #else was there
	enclosed bool // the text around it is skipped
}

func (f *file) active() bool {
	return len(f.conds) == 0 || f.conds[len(f.conds)-1].active
}

// file reads a file to its end.
func (p *processor) file(f *file) error {
	for len(f.rest) > 0 {
		if f.line%1024 == 0 {
			if err := p.check(); err != nil {
				return err
			}
		}
		word := f.directive()
		if word == "" && f.rest[0] == '#' {
			line := f.physical()
			if i := bytes.IndexAny(line, marks); i >= 0 {
				return f.errorf(f.line, "holds the byte %#02x; is it text?", line[i])
			}
			if f.active() {
				if err := p.emit(f, f.line, bytes.TrimSuffix(line, []byte("\n"))); err != nil {
					return err
				}
			}
			continue
		}
		start := f.line + 1
		raw := f.rest
		line, err := f.logical()
		if err != nil {
			return err
		}
		switch {
		case word != "":
			err = p.directive(f, start, word, dropSplices(line), bytes.TrimSuffix(raw[:len(raw)-len(f.rest)], []byte("\n")))
		case f.active():
			if line, err = p.expand(f, start, line, true); err == nil {
				err = p.emit(f, start, line)
			}
		}
		if err != nil {
			return err
		}
	}
	if n := len(f.conds); n > 0 {
		return f.errorf(f.conds[n-1].line, "this #if has no #endif")
	}
	return nil
}

// emit writes a line, at the place it had in the first file if that is still
// possible.
func (p *processor) emit(f *file, at int, line []byte) error {
	for f.depth == 0 && p.outLines < at-1 {
		p.out.WriteByte('\n')
		p.outLines++
	}
	for len(line) > 0 {
		n := bytes.IndexAny(line, marks)
		if n < 0 {
			n = len(line)
		}
		p.out.Write(line[:n])
		p.outLines += bytes.Count(line[:n], []byte("\n")) // of #pragma
		if n < len(line) && line[n] == splice {
			p.out.WriteString("\\\n")
			p.outLines++
		}
		line = line[min(n+1, len(line)):]
	}
	p.out.WriteByte('\n')
	p.outLines++
	if p.out.Len() > MaxOutput {
		return f.errorf(at, "larger than %d MiB after preprocessing", MaxOutput>>20)
	}
	return nil
}

// directive obeys a line, whose # and word are still there.
func (p *processor) directive(f *file, at int, word string, line, raw []byte) error {
	rest := bytes.Trim(bytes.TrimLeft(line[1:], " \t\x02")[len(word):], " \t\r\v\f\x02")
	if word != "define" {
		rest = bytes.ReplaceAll(rest, []byte{gap}, []byte(" "))
	}
	if ok, err := p.conditional(f, at, word, rest); ok || err != nil {
		return err
	}
	if !f.active() {
		return nil
	}
	switch word {
	case "define":
		return p.define(f, at, rest)
	case "undef":
		name, _, err := f.operand(at, word, rest)
		if err == nil {
			delete(p.macros, name)
		}
		return err
	case "include", "import":
		return p.includeLine(f, at, word, rest)
	case "include_next":
		return f.failf(at, define.ErrUnsupported, "#include_next; name the file with its directory in an #include")
	case "error":
		return f.errorf(at, "#error %s", rest)
	case "warning":
		p.warn(f, at, "#warning "+string(rest))
	case "pragma":
		if string(rest) == "once" {
			p.once[f.path] = true
			return nil
		}
		return p.emit(f, at, raw)
	}
	return nil // #line: the lines are known
}

func (p *processor) warn(f *file, at int, text string) {
	const most = 20
	if len(p.warnings) < most {
		p.warnings = append(p.warnings, strings.ToValidUTF8(fmt.Sprintf("%s:%d: %.300s", f.name, at, text), "?"))
	}
}

// operand is the name behind a directive, and what follows.
func (f *file) operand(at int, word string, rest []byte) (string, []byte, error) {
	n := wordAt(rest)
	switch {
	case len(rest) == 0:
		return "", nil, f.errorf(at, "#%s without a name", word)
	case n == 0:
		return "", nil, f.errorf(at, "#%s %s: want a name of letters, digits and _; a comment that begins with this word is a directive to the preprocessor", word, rest)
	case string(rest[:n]) == "defined":
		return "", nil, f.errorf(at, "#%s: defined is no name for a macro", word)
	}
	return string(rest[:n]), rest[n:], nil
}

// conditional obeys the directives that choose what is read; false: it is
// another one.
func (p *processor) conditional(f *file, at int, word string, rest []byte) (bool, error) {
	var top *condition
	if n := len(f.conds); n > 0 {
		top = &f.conds[n-1]
	}
	switch word {
	case "if", "ifdef", "ifndef":
		c := condition{line: at, enclosed: !f.active()}
		if !c.enclosed {
			value, err := p.test(f, at, word, rest)
			if err != nil {
				return true, err
			}
			c.active, c.done = value, value
		}
		f.conds = append(f.conds, c)
		return true, nil
	case "elif", "elifdef", "elifndef", "else", "endif":
	default:
		return false, nil
	}
	switch {
	case top == nil:
		return true, f.errorf(at, "#%s without an #if", word)
	case word == "endif":
		f.conds = f.conds[:len(f.conds)-1]
	case top.elsed:
		return true, f.errorf(at, "#%s behind the #else of the #if in line %d", word, top.line)
	case word == "else":
		top.active = !top.done && !top.enclosed
		top.elsed = true
	case top.done || top.enclosed:
		top.active = false
	default:
		value, err := p.test(f, at, strings.TrimPrefix(word, "el"), rest)
		if err != nil {
			return true, err
		}
		top.active, top.done = value, value
	}
	return true, nil
}

func (p *processor) test(f *file, at int, word string, rest []byte) (bool, error) {
	if word == "if" {
		return p.evaluate(f, at, rest)
	}
	name, _, err := f.operand(at, word, rest)
	return p.defined(name) == (word == "ifdef"), err
}

// includeLine obeys #include and #import.
func (p *processor) includeLine(f *file, at int, word string, rest []byte) error {
	if len(rest) > 0 && rest[0] != '"' && rest[0] != '<' {
		expanded, err := p.expand(f, at, rest, false)
		if err != nil {
			return err
		}
		rest = bytes.TrimSpace(expanded)
	}
	name, quoted, ok := target(rest)
	if !ok {
		return f.errorf(at, "#%s %s: want \"FILE\" or <FILE>", word, rest)
	}
	from := *f
	from.line = at
	if word == "import" {
		return p.importFile(&from, name, quoted)
	}
	return p.include(&from, name, quoted)
}

// target is the name in "FILE" or <FILE>.
func target(text []byte) (name string, quoted, ok bool) {
	if len(text) < 3 || text[0] != '"' && text[0] != '<' {
		return "", false, false
	}
	end := byte('"')
	if text[0] == '<' {
		end = '>'
	}
	n := bytes.IndexByte(text[1:], end)
	if n <= 0 {
		return "", false, false
	}
	name = strings.ReplaceAll(string(text[1:1+n]), string(rune(painted)), "")
	return name, end == '"', true
}

func (p *processor) importFile(f *file, name string, quoted bool) error {
	path, content, err := p.find(f, name, quoted)
	if err != nil || p.once[path] {
		return err
	}
	p.once[path] = true
	return p.run(f, path, content)
}

func (p *processor) include(f *file, name string, quoted bool) error {
	path, content, err := p.find(f, name, quoted)
	if err != nil || p.once[path] {
		return err
	}
	return p.run(f, path, content)
}

func (p *processor) run(f *file, path string, content []byte) error {
	if f.depth+1 > MaxDepth {
		return f.errorf(f.line, "files include files more than %d deep; does %s include itself?", MaxDepth, path)
	}
	dir := ""
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:i]
	}
	return p.file(&file{name: path, path: path, dir: dir, depth: f.depth + 1, rest: content})
}

// find reads the file that name means in f.
func (p *processor) find(f *file, name string, quoted bool) (string, []byte, error) {
	var dirs []string
	if quoted {
		dirs = append(append(dirs, f.dir, ""), p.Flags.quote...)
		dirs = append(dirs, p.Dir)
	}
	dirs = append(dirs, p.Flags.angle...)
	tried, escapes := []string{}, false
	for _, dir := range dirs {
		path, ok := within(dir, name)
		if !ok {
			escapes = true
			continue
		}
		if slices.Contains(tried, path) || p.Read == nil {
			continue
		}
		tried = append(tried, path)
		if err := p.check(); err != nil {
			return "", nil, err
		}
		if err := p.charge(f, f.line, fileWork); err != nil {
			return "", nil, err
		}
		content, err := p.Read(path)
		switch {
		case err == nil:
			return path, content, p.charge(f, f.line, len(content))
		case !errors.Is(err, fs.ErrNotExist):
			return "", nil, fmt.Errorf("%s:%d: #include: %w", f.name, f.line, err)
		}
	}
	switch {
	case escapes:
		return "", nil, f.failf(f.line, define.ErrEscape, "#include of %s, which is outside of the build context", name)
	case !quoted && len(p.Flags.angle) == 0:
		return "", nil, f.failf(f.line, define.ErrNotFound, "#include <%s>: no directory was given with --cpp-flag=-I; write \"%s\"", name, name)
	}
	return "", nil, f.failf(f.line, define.ErrNotFound, "#include of %s, which is not in the build context; it was looked for as %s", name, strings.Join(tried, ", "))
}
