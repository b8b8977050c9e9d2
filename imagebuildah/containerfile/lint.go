package containerfile

import (
	"fmt"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
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
			return &Error{File: b.file.Name, Line: d.Location[0].Start.Line, Err: fmt.Errorf("# check=%s: %w", d.Value, err)}
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

// lintFile applies BuildKit's rules that need no more than the file.
func (b *fileBuilder) lintFile() {}
