package containerfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// BuildKit's parser reads lines with a bufio.Scanner of 64 KiB; longer lines
// are cut at this many bytes into continued ones before it sees them.
const maxLine = 60_000

// Bounds of what one instruction may nest. BuildKit's lexer recurses for each
// ${name:-...} and copies the rest of the word at each level, its parser
// recurses for each ONBUILD, and a stack overflow cannot be caught in Go.
const (
	maxNesting     = 1_000
	maxNestingCost = 1 << 28
)

// scanned is what BuildKit's parser is given.
type scanned struct {
	content []byte
	// lines maps the line numbers of content (from 1) to those of the file;
	// nil when they are equal.
	lines []int
	// held are the long lines of heredocs that content names by "\x00N".
	held []string
	// directives are the parser directives found.
	directives []*parser.Directive
}

// line maps a line number of BuildKit's to the file's.
func (s *scanned) line(n int) int {
	if s.lines == nil || n < 1 || n > len(s.lines) {
		return n
	}
	return s.lines[n-1]
}

// scanner walks a Containerfile line by line as BuildKit's parser does, to
// refuse what would hurt it and to cut what is too long for it. It knows
// comments, directives, continued lines and heredocs, nothing else.
type scanner struct {
	name       string
	content    []byte
	rest       []byte // of content
	number     int    // of the line last read
	long       bool
	out        bytes.Buffer
	directives parser.DirectiveParser
	escape     byte
	continued  *regexp.Regexp
	count      int
	result     scanned
}

// scan checks content and prepares it for BuildKit's parser.
func scan(name string, content []byte) (*scanned, error) {
	s := &scanner{name: name, content: content, rest: content, long: hasLongLine(content)}
	s.setEscape('\\')
	for len(s.rest) > 0 {
		if err := s.instruction(); err != nil {
			return nil, err
		}
	}
	s.result.content = content
	if s.long {
		s.result.content = s.out.Bytes()
	}
	return &s.result, nil
}

func hasLongLine(content []byte) bool {
	for len(content) > maxLine {
		i := bytes.LastIndexByte(content[:maxLine], '\n')
		if i < 0 {
			return true
		}
		content = content[i+1:]
	}
	return false
}

func (s *scanner) setEscape(c byte) {
	s.escape = c
	q := regexp.QuoteMeta(string(rune(c)))
	s.continued = regexp.MustCompile(`([^` + q + `])` + q + `[ \t]*$|^` + q + `[ \t]*$`)
}

func (s *scanner) errorf(line int, keyword, format string, a ...any) error {
	return &Error{File: s.name, Line: line, Instruction: keyword, Err: fmt.Errorf(format, a...)}
}

// next returns the next line with its line ending.
func (s *scanner) next() ([]byte, bool) {
	if len(s.rest) == 0 {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '\n') + 1
	if end == 0 {
		end = len(s.rest)
	}
	line := s.rest[:end]
	s.rest = s.rest[end:]
	s.number++
	return line, true
}

// emit gives BuildKit a line that stands for the line last read.
func (s *scanner) emit(line []byte) {
	if !s.long {
		return
	}
	s.out.Write(line)
	s.result.lines = append(s.result.lines, s.number)
}

// instruction reads one line that is not part of another, what continues it,
// and its heredocs.
func (s *scanner) instruction() error {
	raw, _ := s.next()
	line := bytes.TrimLeftFunc(bytes.TrimRight(raw, "\r\n"), unicode.IsSpace)
	if err := s.directive(line); err != nil {
		return err
	}
	start := s.number
	if len(line) == 0 || line[0] == '#' {
		s.emit(shorten(line, raw))
		return nil
	}
	text, end := s.trimContinuation(line)
	if err := s.emitCut(line, raw); err != nil {
		return err
	}
	if end && len(text) == 0 {
		return nil
	}
	logical := append([]byte(nil), text...)
	for !end {
		raw, ok := s.next()
		if !ok {
			break
		}
		line := bytes.TrimRight(raw, "\r\n")
		if _, err := s.directives.ParseLine(line); err != nil {
			return s.errorf(s.number, "", "%w", explain(err))
		}
		trimmed := bytes.TrimLeftFunc(line, unicode.IsSpace)
		if len(trimmed) == 0 || trimmed[0] == '#' {
			s.emit(shorten(trimmed, raw))
			continue
		}
		if err := s.emitCut(line, raw); err != nil {
			return err
		}
		text, end = s.trimContinuation(line)
		logical = append(logical, text...)
		if len(logical) > MaxInstruction || s.number-start > MaxLines {
			break
		}
	}
	if err := s.checkSize(start, logical); err != nil {
		return err
	}
	if !utf8.Valid(logical) {
		return s.notUTF8(start)
	}
	if s.count++; s.count > MaxInstructions {
		return s.errorf(start, "", "more than %d instructions; split the file into several builds", MaxInstructions)
	}
	return s.heredocs(start, string(logical))
}

// checkSize bounds one instruction.
func (s *scanner) checkSize(start int, logical []byte) error {
	keyword := ""
	if word, _ := splitKeyword(string(logical[:min(len(logical), 64)])); known(word) {
		keyword = strings.ToUpper(word)
	}
	switch {
	case len(logical) > MaxInstruction:
		return s.errorf(start, keyword, "more than %d MiB in one instruction; COPY data from a file", MaxInstruction>>20)
	case s.number-start > MaxLines:
		return s.errorf(start, keyword, "more than %d lines in one instruction; COPY a script and run that", MaxLines)
	case len(logical) > MaxWords && split(keyword, logical) && countWords(logical) > MaxWords:
		return s.errorf(start, keyword, "more than %d words in one instruction; use several, or COPY a file", MaxWords)
	}
	return nil
}

// split reports whether BuildKit's parser makes words of an instruction: it
// leaves commands to the shell, unless they are lists.
func split(keyword string, logical []byte) bool {
	if keyword != "RUN" && keyword != "CMD" && keyword != "ENTRYPOINT" {
		return true
	}
	_, args := splitKeyword(string(logical))
	return strings.HasPrefix(args, "[")
}

// countWords counts what BuildKit's parser may make a node of: words, and
// elements of lists.
func countWords(text []byte) (n int) {
	gap := true
	for _, c := range text {
		is := c <= ' ' || c == ','
		if gap && !is {
			n++
		}
		gap = is
	}
	return n
}

// notUTF8 names the first byte of the instruction from line start on that is
// not UTF-8. Comments and heredocs may hold anything.
func (s *scanner) notUTF8(start int) error {
	rest := s.content
	keyword := ""
	for n := 1; n <= s.number; n++ {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		rest = after
		if n == start {
			if word, _ := splitKeyword(string(line)); known(word) {
				keyword = strings.ToUpper(word)
			}
		}
		if n < start || utf8.Valid(line) || bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			continue
		}
		for column := 1; len(line) > 0; column++ {
			r, size := utf8.DecodeRune(line)
			if r == utf8.RuneError && size == 1 {
				return s.errorf(n, keyword, "byte 0x%02x in column %d is not UTF-8; save the file as UTF-8", line[0], column)
			}
			line = line[size:]
		}
	}
	return s.errorf(start, keyword, "holds bytes that are not UTF-8; save the file as UTF-8")
}

func (s *scanner) directive(line []byte) error {
	d, err := s.directives.ParseLine(line)
	if err != nil {
		return s.errorf(s.number, "", "%w", explain(err))
	}
	if d == nil {
		return nil
	}
	d.Location = []parser.Range{{Start: parser.Position{Line: s.number}, End: parser.Position{Line: s.number}}}
	s.result.directives = append(s.result.directives, d)
	if d.Name == "escape" {
		if d.Value != "`" && d.Value != `\` {
			return s.errorf(s.number, "", "# escape=%s: the escape character is \\ or `", oneLine(d.Value))
		}
		s.setEscape(d.Value[0])
	}
	return nil
}

func (s *scanner) trimContinuation(line []byte) (text []byte, end bool) {
	// Most lines hold no escape character near their end: spare the regexp.
	if t := bytes.TrimRight(line, " \t"); len(t) == 0 || t[len(t)-1] != s.escape {
		return line, true
	}
	if loc := s.continued.FindSubmatchIndex(line); loc != nil {
		if loc[2] >= 0 {
			return line[:loc[3]], false
		}
		return line[:loc[0]], false
	}
	return line, true
}

// shorten keeps a blank or comment line below the parser's limit.
func shorten(trimmed, raw []byte) []byte {
	if len(raw) <= maxLine {
		return raw
	}
	if len(trimmed) == 0 {
		return []byte("\n")
	}
	return append(bytes.ToValidUTF8(append([]byte(nil), trimmed[:min(len(trimmed), 4096)]...), nil), '\n')
}

// emitCut emits a line of an instruction, cut into continued lines when it is
// too long for the parser. A continued line may not begin with "#" (a comment)
// or blanks alone (dropped), and the byte before the escape character may not
// be one.
func (s *scanner) emitCut(line, raw []byte) error {
	if len(raw) <= maxLine {
		s.emit(raw)
		return nil
	}
	for len(line) > maxLine {
		cut := maxLine
		for cut > 1 && (line[cut] == '#' || line[cut] == s.escape || line[cut-1] == s.escape || isSpaceByte(line[cut])) {
			cut--
		}
		if cut <= 1 {
			return s.errorf(s.number, "", "more than %d bytes in a line without a place to cut it; continue it on several lines", maxLine)
		}
		s.emit(append(append([]byte(nil), line[:cut]...), s.escape, '\n'))
		line = line[cut:]
	}
	s.emit(append(append([]byte(nil), line...), '\n'))
	return nil
}

// isSpaceByte errs towards true: bytes above 0x7F may be part of a space.
func isSpaceByte(b byte) bool { return b <= ' ' || b >= 0x80 }

// heredocs checks one logical line and reads the heredocs that it begins.
func (s *scanner) heredocs(start int, logical string) error {
	keyword, args := splitKeyword(logical)
	if keyword == command.Onbuild {
		keyword, args = splitKeyword(args)
		if keyword == command.Onbuild {
			return s.errorf(start, "ONBUILD", "ONBUILD ONBUILD is not allowed; a trigger is one instruction")
		}
	}
	if keyword != command.Run && keyword != command.Copy && keyword != command.Add || !strings.Contains(logical, "<<") {
		return nil
	}
	if n := nesting(logical); n > maxNesting || n*len(logical) > maxNestingCost {
		return s.errorf(start, strings.ToUpper(keyword), "%d substitutions like ${name:-word} in one instruction with <<; at most %d", n, maxNesting)
	}
	if jsonList(args) {
		return nil
	}
	for _, h := range heredocNames(logical) {
		if err := s.heredoc(start, keyword, h); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) heredoc(start int, keyword string, h parser.Heredoc) error {
	for {
		raw, ok := s.next()
		if !ok {
			return s.errorf(start, strings.ToUpper(keyword), "the heredoc <<%s is not ended; end it with a line that holds %s alone", h.Name, h.Name)
		}
		line := bytes.TrimRight(raw, "\r\n")
		if h.Chomp {
			line = bytes.TrimLeft(line, "\t")
		}
		if len(raw) > maxLine {
			s.emit([]byte("\x00" + strconv.Itoa(len(s.result.held)) + "\x00\n"))
			s.result.held = append(s.result.held, string(raw))
		} else {
			s.emit(raw)
		}
		if string(line) == h.Name {
			return nil
		}
	}
}

// splitKeyword returns the keyword in lower case and what follows it and its
// flags.
func splitKeyword(line string) (keyword, args string) {
	line = strings.TrimSpace(line)
	i := strings.IndexAny(line, "\t\v\f\r ")
	if i < 0 {
		return strings.ToLower(line), ""
	}
	keyword, args = strings.ToLower(line[:i]), line[i:]
	for {
		args = strings.TrimLeft(args, "\t\v\f\r ")
		if !strings.HasPrefix(args, "--") {
			return keyword, args
		}
		i := strings.IndexAny(args, "\t\v\f\r ")
		if i < 0 {
			return keyword, ""
		}
		args = args[i:]
	}
}

// nesting counts substitutions that BuildKit's lexer recurses for: every "${"
// but the plain ${name}.
func nesting(line string) (n int) {
	for {
		i := strings.Index(line, "${")
		if i < 0 {
			return n
		}
		line = line[i+2:]
		name := strings.IndexFunc(line, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if name < 0 || line[name] != '}' {
			n++
		}
	}
}

// jsonList reports whether args are what BuildKit takes for the exec form,
// which has no heredocs.
func jsonList(args string) bool {
	var list []string
	return strings.HasPrefix(strings.TrimSpace(args), "[") && json.Unmarshal([]byte(args), &list) == nil
}

var noEnv = shell.EnvsFromSlice(nil)

// heredocNames finds the heredocs of a line as BuildKit's parser does.
func heredocNames(line string) []parser.Heredoc {
	lex := shell.NewLex('\\')
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	words, _ := guard(func() ([]string, error) { return lex.ProcessWords(line, noEnv) })
	var found []parser.Heredoc
	for _, word := range words {
		h, err := guard(func() (*parser.Heredoc, error) { return parser.ParseHeredoc(word) })
		if err == nil && h != nil {
			found = append(found, *h)
		}
	}
	return found
}

var errPanic = errors.New("the parser cannot read this")

// guard turns a panic of BuildKit's code into an error.
func guard[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w (%v)", errPanic, r)
		}
	}()
	return f()
}
