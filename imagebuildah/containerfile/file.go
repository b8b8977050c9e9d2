package containerfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/stratabuild/strata/define"
)

// Limits of what is read.
const (
	MaxSize         = 16 << 20 // bytes of a Containerfile
	MaxInstructions = 20_000
	// Of one instruction, without its heredocs: bytes, continued lines, and
	// words or elements of a list. BuildKit's parser makes a node of 100 bytes
	// and more of each.
	MaxInstruction = 2 << 20
	MaxLines       = 100_000
	MaxWords       = 50_000
	// MaxPorts is how many ports EXPOSE may name in a file.
	MaxPorts = 200_000
	// MaxInherited is how much stages may take over from stages that they begin
	// with, together, in instructions, variables and labels; see Inherited.
	MaxInherited = 500_000
)

// File is a Containerfile, parsed and checked. It is not changed after Parse
// and may be used by several goroutines, but for Instruction.Command (see
// there).
type File struct {
	Name string
	// Escape is the escape character, '\\' or '`' (# escape=).
	Escape rune
	// Args are the ARG instructions before the first FROM.
	Args   []Instruction
	Stages []Stage
	// Warnings are what the user should know (BuildKit's rule names; a
	// notice of ours has no rule).
	Warnings []Warning
	// Check is what the directive "# check=" asks for.
	Check Check

	contexts map[string]bool
	names    map[string][]int // stages by name, in lower case, ascending
	rules    linter.Config    // Check as the linter takes it
}

// Stage is one FROM and what follows it.
type Stage struct {
	Index    int
	Name     string // AS, lower case; "" when unnamed
	Base     string // unexpanded
	Platform string // unexpanded, --platform
	// After is the earlier stage that must have ended before this one begins
	// (--after of buildah), "" for none.
	After string
	// Doc is the comment above FROM that begins with the stage's name,
	// without that.
	Doc  string
	From Instruction
	// Instructions are those after FROM.
	Instructions []Instruction
}

// Instruction is one instruction of a stage or of ONBUILD.
type Instruction struct {
	// Keyword in upper case: "RUN".
	Keyword string
	// Text is the instruction as written, without its heredocs, on one line.
	Text string
	File string
	Line int
	// Command is BuildKit's typed form (*instructions.RunCommand, ...). For
	// a stage's FROM it is nil. Expanding variables changes it in place:
	// whoever expands the same File more than once (several platforms, an
	// ONBUILD) expands what Fresh returns instead.
	Command instructions.Command

	node *parser.Node
}

// Fresh returns a new typed form of the instruction, equal to Command as it
// was parsed, for the caller to change. It is nil for FROM.
func (i Instruction) Fresh() instructions.Command {
	if i.Command == nil || i.node == nil {
		return i.Command
	}
	v, err := typed(i.node, nil)
	if err != nil {
		return i.Command // cannot happen: the same node was accepted before
	}
	cmd, _ := v.(instructions.Command)
	return cmd
}

// Errorf makes an Error at the instruction's place.
func (i Instruction) Errorf(format string, a ...any) error {
	return i.wrap(fmt.Errorf(format, a...))
}

func (i Instruction) wrap(err error) *Error {
	return &Error{File: i.File, Line: i.Line, Instruction: i.Keyword, Err: err}
}

// EndLine is the last line of the instruction, without its heredocs.
func (i Instruction) EndLine() int {
	if i.node == nil || i.node.EndLine < i.node.StartLine {
		return i.Line
	}
	return i.Line + i.node.EndLine - i.node.StartLine
}

// Warning is a remark about the file.
type Warning struct {
	// Rule is BuildKit's name of the rule, "" for a notice of ours; URL is its
	// page and Description the rule in one sentence.
	Rule, Description, URL string
	// Text is about this place.
	Text, File    string
	Line, EndLine int
	// Stage is the stage that the warning is about, -1 when it is about the
	// file as a whole.
	Stage int
}

// String is the warning without its place: "Rule: text".
func (w Warning) String() string {
	if w.Rule == "" {
		return w.Text
	}
	return w.Rule + ": " + w.Text
}

// Error is a mistake in a Containerfile. Its text is
// "file:line: INSTRUCTION: what is wrong[; did you mean X?]"; the instruction
// is left out where the mistake is not one instruction's. It is a
// define.ErrInvalid.
type Error struct {
	File        string
	Line        int
	Instruction string
	Err         error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		b.WriteString(":" + strconv.Itoa(e.Line))
	}
	if e.Instruction != "" {
		b.WriteString(": " + shortened(e.Instruction))
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

// maxShown is how much of an instruction stands in the line of an error.
const maxShown = 300

// shortened cuts a long instruction, between two characters.
func shortened(text string) string {
	if len(text) <= maxShown {
		return text
	}
	end := maxShown
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes every Error a define.ErrInvalid without its words in the text.
func (e *Error) Is(target error) bool { return target == define.ErrInvalid }

// StageByName finds a stage by name (case-insensitive) or index, among the
// stages before the given one (len(Stages) for all). Of several with a name
// the last counts, as in BuildKit.
func (f *File) StageByName(name string, before int) (int, bool) {
	before = min(before, len(f.Stages))
	if n, ok := stageIndex(name); ok {
		return n, n < before
	}
	if name == "" {
		return 0, false
	}
	for _, i := range slices.Backward(f.names[strings.ToLower(name)]) {
		if i < before {
			return i, true
		}
	}
	return 0, false
}

// stageIndex reads a stage's number. Digits are always a number: no stage
// name may begin with one.
func stageIndex(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return int(^uint(0) >> 1), true // beyond any stage
	}
	return n, true
}
