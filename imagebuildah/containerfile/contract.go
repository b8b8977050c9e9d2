package containerfile

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// File is a Containerfile, parsed and checked.
type File struct {
	Name string
	// Args are the ARG instructions before the first FROM.
	Args   []Instruction
	Stages []Stage
	// Warnings are what the user should know (BuildKit's rule names).
	Warnings []Warning
}

// Stage is one FROM and what follows it.
type Stage struct {
	Index    int
	Name     string // AS, lower case; "" when unnamed
	Base     string // unexpanded
	Platform string // unexpanded, --platform
	From     Instruction
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
	// a stage's FROM it is nil.
	Command instructions.Command
}

// Warning is a remark about the file.
type Warning struct {
	Rule, Text, File string
	Line             int
}

// Error is a mistake in a Containerfile. Its text is
// "file:line: INSTRUCTION: what is wrong[; did you mean X?]".
type Error struct {
	File        string
	Line        int
	Instruction string
	Err         error
}

func (e *Error) Error() string { panic("containerfile") }

func (e *Error) Unwrap() error { return e.Err }

// Limits of what is read.
const (
	MaxSize         = 16 << 20 // bytes of a Containerfile
	MaxInstructions = 100_000
)

// Parse reads a Containerfile; name is used in messages.
func Parse(name string, content []byte) (*File, error) { panic("containerfile") }

// ParseOnBuild reads the instruction of a trigger as base images hold them.
func ParseOnBuild(image, trigger string) (Instruction, error) { panic("containerfile") }

// Graph finds, for the target (a name, an index, or "" for the last stage),
// the stages that it needs, each with the stages it depends on: FROM, COPY
// --from and RUN --mount from. Unknown targets are errors that name the
// nearest. expand expands FROM's base with the global arguments.
func (f *File) Graph(target string, expand func(word string) (string, error)) (*Graph, error) {
	panic("containerfile")
}

// Graph is the part of a File that a target needs.
type Graph struct {
	Target int
	// Needed are stage indices in ascending order; Target is the last.
	Needed []int
	// Deps maps a stage to the stages it waits for.
	Deps map[int][]int
}

// StageByName finds a stage by name (case-insensitive) or index, among the
// stages before the given one (len(Stages) for all).
func (f *File) StageByName(name string, before int) (int, bool) { panic("containerfile") }
