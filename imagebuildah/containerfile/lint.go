package containerfile

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"

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

// check reads "# check=" and makes the linter that gathers warnings.
func (b *fileBuilder) check() error {
	config := &linter.Config{}
	for _, d := range b.prepared.directives {
		if d.Name != "check" {
			continue
		}
		parsed, err := linter.ParseLintOptions(d.Value)
		if err != nil {
			return &Error{File: b.file.Name, Line: d.Location[0].Start.Line, Err: fmt.Errorf("# check=%s: %w; want skip=rule,..., error=true or experimental=rule,...", quoteWord(d.Value), err)}
		}
		config = parsed
	}
	b.file.Check = Check{SkipAll: config.SkipAll, Skip: config.SkipRules, Error: config.ReturnAsError}
	config.Warn = func(rule, _, _, text string, at []parser.Range) {
		line := 0
		if len(at) > 0 {
			line = at[0].Start.Line
		}
		b.file.Warnings = append(b.file.Warnings, Warning{Rule: rule, Text: text, File: b.file.Name, Line: line})
	}
	b.lint = linter.New(config)
	return nil
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
		File: b.file.Name, Line: line,
	})
}

// lintFile applies those of BuildKit's rules that need no more than the file
// and that its own parser does not apply. UndefinedVar, CopyIgnoredFile and
// InvalidBaseImagePlatform need the base image or the context.
func (b *fileBuilder) lintFile() {
	b.lintCasing()
	globals := b.globals()
	workdir := make([]bool, len(b.file.Stages)) // the stage has set one
	for i := range b.file.Stages {
		s := &b.file.Stages[i]
		b.lintFrom(s, globals)
		if base, ok := b.file.StageByName(s.Base, i); ok {
			workdir[i] = workdir[base]
		}
		b.lintStage(s, &workdir[i])
	}
	for _, ins := range b.file.Args {
		b.lintSecrets(ins)
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

// predefined are the global arguments that exist without a declaration.
var predefined = []string{
	"BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT",
	"TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT", "TARGETSTAGE",
}

// globals maps the declared global arguments to their defaults, nil for none.
func (b *fileBuilder) globals() map[string]*string {
	names := map[string]*string{}
	for _, p := range predefined {
		value := "predefined"
		names[p] = &value
	}
	for _, ins := range b.file.Args {
		cmd, _ := ins.Command.(*instructions.ArgCommand)
		for _, a := range cmd.Args {
			if _, known := names[a.Key]; !known || a.Value != nil {
				names[a.Key] = a.Value
			}
		}
	}
	return names
}

// fill replaces the variables of a word by what value gives; plain is false
// for forms like ${name:-word}, whose operator and word stay.
func fill(word string, value func(name string, plain bool) string) string {
	var out strings.Builder
	for i := 0; i < len(word); i++ {
		if c := word[i]; (c == '\\' || c == '`') && i+1 < len(word) {
			out.WriteString(word[i : i+2])
			i++
			continue
		} else if c != '$' {
			out.WriteByte(c)
			continue
		}
		rest := strings.TrimPrefix(word[i+1:], "{")
		braced := len(rest) < len(word)-i-1
		end := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if end < 0 {
			end = len(rest)
		}
		if end == 0 {
			out.WriteByte('$')
			continue
		}
		plain := !braced || end < len(rest) && rest[end] == '}'
		out.WriteString(value(rest[:end], plain))
		i += end
		if braced {
			i++
			if plain {
				i++
			}
		}
	}
	return out.String()
}

func (b *fileBuilder) lintFrom(s *Stage, globals map[string]*string) {
	if s.Name == "scratch" || s.Name == "context" {
		rule := &linter.RuleReservedStageName
		b.warn(s.From, rule, rule.Format(s.Name))
	}
	reported := map[string]bool{}
	fill(s.Base+" "+s.Platform, func(name string, _ bool) string {
		if _, ok := globals[name]; !ok && !reported[name] {
			reported[name] = true
			rule := &linter.RuleUndefinedArgInFrom
			b.warn(s.From, rule, rule.Format(name, nearest(name, slices.Collect(maps.Keys(globals)))))
		}
		return ""
	})
	if base, ok := withDefaults(s.Base, globals); ok && (base == "" || strings.ContainsAny(base[:1]+base[len(base)-1:], ":@/")) {
		rule := &linter.RuleInvalidDefaultArgInFrom
		b.warn(s.From, rule, rule.Format(s.Base))
	}
	switch {
	case s.Platform == "":
	case s.Platform == "$TARGETPLATFORM" || s.Platform == "${TARGETPLATFORM}":
		rule := &linter.RuleRedundantTargetPlatform
		b.warn(s.From, rule, rule.Format(s.Platform))
	case !variable(s.Platform):
		p, err := define.ParsePlatform(s.Platform)
		if err == nil && !strings.Contains(s.Name, p.OS) && !strings.Contains(s.Name, p.Architecture) {
			rule := &linter.RuleFromPlatformFlagConstDisallowed
			b.warn(s.From, rule, rule.Format(s.Platform))
		}
	}
}

// withDefaults fills in plain references by defaults that hold none; ok is
// false when that is not all there is to do.
func withDefaults(base string, globals map[string]*string) (_ string, ok bool) {
	if !variable(base) || strings.ContainsAny(base, "\\`'\"") {
		return "", false
	}
	ok = true
	out := fill(base, func(name string, plain bool) string {
		value := globals[name]
		ok = ok && plain
		if value == nil {
			return ""
		}
		ok = ok && !variable(*value)
		return strings.Trim(*value, `"'`)
	})
	return out, ok
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

// secretWords make a name sound like a secret when they begin or end it.
var secretWords = []string{
	"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token",
}

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
		words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
		if len(words) == 0 || slices.Contains(words, "public") {
			continue
		}
		if slices.Contains(secretWords, words[0]) || slices.Contains(secretWords, words[len(words)-1]) {
			rule := &linter.RuleSecretsUsedInArgOrEnv
			b.warn(ins, rule, rule.Format(ins.Keyword, name))
		}
	}
}
