package containerfile

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/stratabuild/strata/define"
)

// Check is the content of "# check=".
type Check struct {
	SkipAll bool
	Skip    []string
	// Error makes any warning fail the build.
	Error bool
}

// Skips reports whether the file asks not to be told of a rule.
func (c Check) Skips(rule string) bool { return c.SkipAll || slices.Contains(c.Skip, rule) }

// check reads "# check=", or what stands for it, and makes the linter that
// gathers warnings.
func (b *fileBuilder) check(instead string) error {
	config := &linter.Config{}
	if instead == "" && bytes.HasPrefix(b.content, []byte("#!")) {
		// The line hides directives from the parser, but not from those who
		// look for this one.
		instead, _, _, _ = parser.ParseDirective("check", b.content)
	}
	if instead != "" {
		parsed, err := linter.ParseLintOptions(instead)
		if err != nil {
			return &Error{File: b.file.Name, Err: fmt.Errorf("check=%s: %w; want skip=rule,..., error=true or experimental=rule,...", quoteWord(instead), err)}
		}
		config = parsed
	}
	for _, d := range b.prepared.directives {
		if d.Name != "check" || instead != "" {
			continue
		}
		parsed, err := linter.ParseLintOptions(d.Value)
		if err != nil {
			return &Error{File: b.file.Name, Line: d.Location[0].Start.Line, Err: fmt.Errorf("# check=%s: %w; want skip=rule,..., error=true or experimental=rule,...", quoteWord(d.Value), err)}
		}
		config = parsed
	}
	b.file.Check = Check{SkipAll: config.SkipAll, Skip: config.SkipRules, Error: config.ReturnAsError}
	b.file.rules = *config
	config.Warn = func(rule, description, url, text string, at []parser.Range) {
		w := Warning{Rule: rule, Description: description, URL: url, Text: oneLine(text), File: b.file.Name, Stage: b.stage}
		w.Line, w.EndLine = span(at)
		b.file.Warnings = append(b.file.Warnings, w)
	}
	b.lint = linter.New(config)
	return nil
}

func span(at []parser.Range) (first, last int) {
	if len(at) == 0 {
		return 0, 0
	}
	return at[0].Start.Line, max(at[0].Start.Line, at[len(at)-1].End.Line)
}

// Violation is a rule that only a caller can apply, because it needs a base
// image or the context: it is a warning unless the file or a comment above
// the instruction says otherwise. Rules are BuildKit's, as the variables of
// its package linter.
func (f *File) Violation(ins Instruction, stage int, rule linter.LinterRuleI, text string) (w Warning, ok bool) {
	config := f.rules
	config.Warn = func(rule, description, url, text string, _ []parser.Range) {
		w, ok = Warning{Rule: rule, Description: description, URL: url, Text: oneLine(text),
			File: ins.File, Line: ins.Line, EndLine: ins.EndLine(), Stage: stage}, true
	}
	lint := linter.New(&config)
	if ins.node != nil {
		lint = lint.WithMergedConfigFromComments(ins.node.PrevComment)
	}
	lint.Run(rule, nil, text)
	return w, ok
}

// RuleError is the first violated rule, with its place, when the file wants
// violations to be errors ("# check=error=true"), else nil.
func (f *File) RuleError() error {
	for _, w := range f.Warnings {
		if err := f.AsError(w); err != nil {
			return &Error{File: w.File, Line: w.Line, Err: err}
		}
	}
	return nil
}

// AsError makes a warning the error that the file wants it to be, without its
// place, or nil.
func (f *File) AsError(w Warning) error {
	if !f.Check.Error || w.Rule == "" {
		return nil
	}
	return fmt.Errorf("%s (an error because of check=error=true): %w", w, define.ErrInvalid)
}

// syntaxNotice says once that "# syntax=" is not followed.
func (b *fileBuilder) syntaxNotice() {
	syntax, _, at, ok := parser.DetectSyntax(b.content)
	if !ok {
		return
	}
	line := 1
	if len(at) > 0 {
		line = at[0].Start.Line
	}
	b.file.Warnings = append(b.file.Warnings, Warning{
		Text: "# syntax=" + syntax + " is not used: the frontend is built in",
		File: b.file.Name, Line: line, EndLine: line, Stage: -1,
	})
}

// lintFile applies those of BuildKit's rules that need no more than the file
// and that its own parser does not apply. UndefinedVar, CopyIgnoredFile and
// InvalidBaseImagePlatform need the base image or the context.
func (b *fileBuilder) lintFile() {
	b.stage = -1
	b.lintCasing()
	b.lintNames()
	globals := b.globals()
	workdir := make([]bool, len(b.file.Stages)) // the stage has set one
	for i := range b.file.Stages {
		b.stage = i
		s := &b.file.Stages[i]
		b.lintFrom(s, globals)
		if base, ok := b.file.StageByName(s.Base, i); ok {
			workdir[i] = workdir[base]
		}
		b.lintStage(s, &workdir[i])
	}
	slices.SortStableFunc(b.file.Warnings, func(a, b Warning) int { return a.Line - b.Line })
}

// warn reports a rule at an instruction, unless a comment above it says
// otherwise.
func (b *fileBuilder) warn(ins Instruction, rule linter.LinterRuleI, text string) {
	b.lint.WithMergedConfigFromComments(ins.node.PrevComment).Run(rule, ins.node.Location(), text)
}

// lintCasing compares the case of each keyword with that of most.
func (b *fileBuilder) lintCasing() {
	var all []Instruction
	for i := range b.file.Stages {
		all = append(append(all, b.file.Stages[i].From), b.file.Stages[i].Instructions...)
	}
	lower, upper := 0, 0
	for _, ins := range all {
		switch ins.node.Value {
		case strings.ToLower(ins.Keyword):
			lower++
		case ins.Keyword:
			upper++
		}
	}
	majority, convert := "uppercase", strings.ToUpper
	if lower > upper {
		majority, convert = "lowercase", strings.ToLower
	}
	rule := &linter.RuleConsistentInstructionCasing
	for _, ins := range all {
		if ins.node.Value != convert(ins.node.Value) {
			b.warn(ins, rule, rule.Format(ins.node.Value, majority))
		}
	}
}

// lintStage applies the rules about single instructions of a stage.
func (b *fileBuilder) lintStage(s *Stage, workdir *bool) {
	shell := false
	last := map[string]Instruction{}
	for _, ins := range s.Instructions {
		switch c := ins.Command.(type) {
		case *instructions.ShellCommand:
			shell = true
		case *instructions.CmdCommand:
			b.lintExecForm(ins, c.PrependShell && !shell)
			b.lintOnce(ins, last)
		case *instructions.EntrypointCommand:
			b.lintExecForm(ins, c.PrependShell && !shell)
			b.lintOnce(ins, last)
		case *instructions.HealthCheckCommand:
			b.lintOnce(ins, last)
		case *instructions.WorkdirCommand:
			if !*workdir && !path.IsAbs(c.Path) && !variable(c.Path) {
				rule := &linter.RuleWorkdirRelativePath
				b.warn(ins, rule, rule.Format(c.Path))
			}
			*workdir = true
		case *instructions.EnvCommand:
			b.lintLegacy(ins, c.Env)
			b.lintSecrets(ins)
		case *instructions.LabelCommand:
			b.lintLegacy(ins, c.Labels)
		case *instructions.ArgCommand:
			b.lintSecrets(ins)
		case *instructions.ExposeCommand:
			b.lintExpose(ins, c.Ports)
		}
	}
}

func (b *fileBuilder) lintExecForm(ins Instruction, shell bool) {
	if shell {
		rule := &linter.RuleJSONArgsRecommended
		b.warn(ins, rule, rule.Format(ins.Keyword))
	}
}

// lintOnce reports the earlier of two, which has no effect.
func (b *fileBuilder) lintOnce(ins Instruction, last map[string]Instruction) {
	if earlier, ok := last[ins.Keyword]; ok {
		rule := &linter.RuleMultipleInstructionsDisallowed
		b.warn(earlier, rule, rule.Format(ins.Keyword))
	}
	last[ins.Keyword] = ins
}

func (b *fileBuilder) lintLegacy(ins Instruction, pairs instructions.KeyValuePairs) {
	for _, kv := range pairs {
		if kv.NoDelim {
			rule := &linter.RuleLegacyKeyValueFormat
			b.warn(ins, rule, rule.Format(ins.Keyword))
		}
	}
}

func (b *fileBuilder) lintExpose(ins Instruction, ports []string) {
	for _, p := range ports {
		if variable(p) {
			continue
		}
		if strings.Contains(p, ":") {
			rule := &linter.RuleExposeInvalidFormat
			b.warn(ins, rule, rule.Format(p))
		}
		if _, proto, _ := strings.Cut(p, "/"); proto != strings.ToLower(proto) {
			rule := &linter.RuleExposeProtoCasing
			b.warn(ins, rule, rule.Format(p))
		}
	}
}

// secretWords make a name sound like a secret when one stands between
// underscores or alone; harmlessWords say that it is none.
var (
	secretWords = []string{
		"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token",
	}
	harmlessWords = []string{"public", "file", "version"}
)

func (b *fileBuilder) lintSecrets(ins Instruction) {
	var names []string
	switch c := ins.Command.(type) {
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			names = append(names, a.Key)
		}
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			names = append(names, kv.Key)
		}
	}
	for _, name := range names {
		words := strings.Split(strings.ToLower(name), "_")
		has := func(list []string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) })
		}
		if has(secretWords) && !has(harmlessWords) {
			rule := &linter.RuleSecretsUsedInArgOrEnv
			b.warn(ins, rule, rule.Format(ins.Keyword, name))
		}
	}
}
