package containerfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Options says what is known besides the file.
type Options struct {
	// Contexts are the names of additional build contexts (--build-context),
	// which stand for images and stages.
	Contexts []string
	// Check replaces what the file's "# check=" says, in its form, when it is
	// not "" (the build argument BUILDKIT_DOCKERFILE_CHECK).
	Check string
}

// Parse reads a Containerfile; name is used in messages. contexts are
// Options.Contexts. Errors are *Error, and define.ErrInvalid. Rules that
// "# check=error=true" makes errors are File.RuleError's.
func Parse(name string, content []byte, contexts ...string) (*File, error) {
	return parse(name, content, Options{Contexts: contexts})
}

func parse(name string, content []byte, o Options) (*File, error) {
	content = bytes.TrimPrefix(content, []byte("\uFEFF"))
	if err := checkBytes(name, content); err != nil {
		return nil, err
	}
	prepared, err := scan(name, content)
	if err != nil {
		return nil, err
	}
	tree, err := parseTree(name, prepared)
	if err != nil {
		return nil, err
	}
	b := &fileBuilder{
		file:     &File{Name: name, Escape: tree.EscapeToken, contexts: map[string]bool{}, names: map[string][]int{}},
		prepared: prepared,
		content:  content,
		stage:    -1,
	}
	for _, c := range o.Contexts {
		b.file.contexts[strings.ToLower(c)] = true
	}
	if err := b.check(o.Check); err != nil {
		return nil, err
	}
	b.syntaxNotice()
	for _, w := range tree.Warnings {
		if w.Location != nil {
			rule := &linter.RuleNoEmptyContinuation
			at := parser.Position{Line: prepared.line(w.Location.Start.Line)}
			b.lint.Run(rule, []parser.Range{{Start: at, End: at}}, rule.Format())
		}
	}
	for _, node := range tree.AST.Children {
		if node.Value != "" && strings.EqualFold(node.Value, "FROM") {
			b.stage++
		}
		if err := b.add(node); err != nil {
			return nil, err
		}
	}
	return b.finish()
}

// checkBytes refuses what no Containerfile holds.
func checkBytes(name string, content []byte) error {
	if len(content) > MaxSize {
		return &Error{File: name, Err: fmt.Errorf("larger than %d MiB; move data out of the file and COPY it", MaxSize>>20)}
	}
	if i := bytes.IndexByte(content, 0); i >= 0 {
		line := 1 + bytes.Count(content[:i], []byte("\n"))
		return &Error{File: name, Line: line, Err: errors.New("holds a NUL byte; the file must be plain text")}
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return &Error{File: name, Line: 1, Err: errors.New("the file is empty; begin with FROM image")}
	}
	return nil
}

// parseTree runs BuildKit's parser and puts right what scan changed for it.
func parseTree(name string, s *scanned) (*parser.Result, error) {
	tree, err := guard(func() (*parser.Result, error) { return parser.Parse(bytes.NewReader(s.content)) })
	if err != nil {
		line, keyword := 0, ""
		var at *parser.LocationError
		if errors.As(err, &at) && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
			n := at.Locations[0][0].Start.Line
			line, keyword = s.line(n), keywordAt(s.content, n)
		}
		if strings.Contains(err.Error(), "file with no instructions") {
			line, err = max(line, 1), errors.New("the file holds no instruction; begin with FROM image")
		}
		return nil, &Error{File: name, Line: line, Instruction: keyword, Err: explain(err)}
	}
	for _, node := range tree.AST.Children {
		node.StartLine, node.EndLine = s.line(node.StartLine), s.line(node.EndLine)
		for i := range node.Heredocs {
			node.Heredocs[i].Content = s.restore(node.Heredocs[i].Content)
		}
	}
	return tree, nil
}

var heldLine = lazy("\x00[0-9]+\x00\n")

// restore puts held long lines back into a heredoc.
func (s *scanned) restore(text string) string {
	if len(s.held) == 0 {
		return text
	}
	return heldLine().ReplaceAllStringFunc(text, func(m string) string {
		n := 0
		for _, c := range m[1 : len(m)-2] {
			n = n*10 + int(c-'0')
		}
		return s.held[n] // scan wrote every such line: no NUL passes checkBytes
	})
}

// keywordAt returns the first word of a line when it is a keyword.
func keywordAt(content []byte, line int) string {
	for ; line > 1; line-- {
		i := bytes.IndexByte(content, '\n')
		if i < 0 {
			return ""
		}
		content = content[i+1:]
	}
	if i := bytes.IndexByte(content, '\n'); i >= 0 {
		content = content[:i]
	}
	word, _ := splitKeyword(string(content))
	if known(word) {
		return strings.ToUpper(word)
	}
	return ""
}

// known reports whether a word in lower case is a keyword.
func known(word string) bool {
	_, ok := command.Commands[word]
	return ok
}

// typed converts a node to BuildKit's typed form.
func typed(node *parser.Node, lint *linter.Linter) (any, error) {
	return guard(func() (any, error) {
		if lint == nil {
			lint = linter.New(&linter.Config{})
		}
		return instructions.ParseInstructionWithLinter(withoutAfter(withoutOwnMountKeys(node)), lint)
	})
}

// fileBuilder gathers a File from nodes.
type fileBuilder struct {
	file     *File
	prepared *scanned
	content  []byte
	lint     *linter.Linter
	stage    int // that warnings are about, -1 before the first FROM
	ports    int // that EXPOSE has named
}

// add checks one node and puts it where it belongs.
func (b *fileBuilder) add(node *parser.Node) error {
	f := b.file
	ins := Instruction{
		Keyword: strings.ToUpper(node.Value), Text: strings.TrimSpace(node.Original),
		File: f.Name, Line: node.StartLine, node: node,
	}
	v, err := parseNode(&ins, b.lint)
	if err != nil {
		return err
	}
	if stage, ok := v.(*instructions.Stage); ok {
		return b.addStage(ins, stage)
	}
	if len(f.Stages) == 0 {
		if ins.Keyword != "ARG" {
			return ins.Errorf("comes before the first FROM; only ARG may")
		}
		f.Args = append(f.Args, ins)
		return nil
	}
	stage := &f.Stages[len(f.Stages)-1]
	if err := check(ins); err != nil {
		return err
	}
	if expose, ok := ins.Command.(*instructions.ExposeCommand); ok {
		if err := b.checkPorts(ins, expose.Ports); err != nil {
			return err
		}
	}
	stage.Instructions = append(stage.Instructions, ins)
	return nil
}

func (b *fileBuilder) addStage(ins Instruction, s *instructions.Stage) error {
	f := b.file
	name := strings.ToLower(s.Name)
	if name != "" {
		f.names[name] = append(f.names[name], len(f.Stages))
	}
	f.Stages = append(f.Stages, Stage{
		Index: len(f.Stages), Name: name, Base: s.BaseName, Platform: s.Platform, After: after(ins.node), Doc: s.DocComment, From: ins,
	})
	if err := f.checkAfter(&f.Stages[len(f.Stages)-1]); err != nil {
		return err
	}
	return checkFrom(ins, s)
}

// parseNode fills in ins.Command, or returns the *instructions.Stage of FROM.
func parseNode(ins *Instruction, lint *linter.Linter) (any, error) {
	if !known(strings.ToLower(ins.Keyword)) {
		bad := *ins
		bad.Keyword = quoteWord(ins.Keyword)
		return nil, bad.Errorf("unknown instruction%s", orNearest(ins.Keyword, keywords()))
	}
	if err := checkFlags(*ins); err != nil {
		return nil, err
	}
	v, err := typed(ins.node, lint)
	if err != nil {
		return nil, ins.wrap(explain(err))
	}
	ins.Command, _ = v.(instructions.Command)
	return v, nil
}

// finish makes the checks that need the whole file.
func (b *fileBuilder) finish() (*File, error) {
	f := b.file
	if len(f.Stages) == 0 {
		last := f.Args[len(f.Args)-1]
		return nil, &Error{File: f.Name, Line: last.Line, Err: errors.New("the file has no FROM; begin a stage with FROM image")}
	}
	for i := range f.Stages {
		for _, ins := range f.Stages[i].Instructions {
			if err := f.checkSources(i, ins); err != nil {
				return nil, err
			}
		}
	}
	b.lintFile()
	return f, nil
}

// ParseOnBuild reads the instruction of a trigger as base images hold them;
// image is used in messages. Errors are *Error.
func ParseOnBuild(image, trigger string) (Instruction, error) {
	name := "ONBUILD of " + image
	ins, err := parseTrigger(name, trigger)
	if err != nil {
		return Instruction{}, err
	}
	return ins, nil
}

// parseTrigger reads exactly one instruction that may be a trigger.
func parseTrigger(name, trigger string) (Instruction, error) {
	content := []byte(trigger)
	if err := checkBytes(name, content); err != nil {
		return Instruction{}, err
	}
	prepared, err := scan(name, content)
	if err != nil {
		return Instruction{}, err
	}
	tree, err := parseTree(name, prepared)
	if err != nil {
		return Instruction{}, err
	}
	nodes := tree.AST.Children
	node := nodes[0]
	ins := Instruction{
		Keyword: strings.ToUpper(node.Value), Text: strings.TrimSpace(node.Original),
		File: name, Line: node.StartLine, node: node,
	}
	if len(nodes) != 1 {
		return ins, ins.Errorf("a trigger is one instruction, this has %d", len(nodes))
	}
	switch ins.Keyword {
	case "FROM", "ONBUILD", "MAINTAINER":
		return ins, ins.Errorf("is not allowed as an ONBUILD trigger")
	}
	if _, err := parseNode(&ins, nil); err != nil {
		return ins, err
	}
	if expose, ok := ins.Command.(*instructions.ExposeCommand); ok {
		b := &fileBuilder{file: &File{Escape: tree.EscapeToken}}
		return ins, b.checkPorts(ins, expose.Ports)
	}
	return ins, check(ins)
}
