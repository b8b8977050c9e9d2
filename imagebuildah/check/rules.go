package check

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// maxCandidates is the number of variables up to which spellings are compared.
const maxCandidates = 500

// Undefined applies the rule UndefinedVar after an instruction was expanded in
// scope. likely, when not nil, says of a name and its nearest spelling ("" for
// none) whether it is to be reported.
func Undefined(f *containerfile.File, ins containerfile.Instruction, stage int, scope *expand.Stage, likely func(name, near string) bool) []containerfile.Warning {
	names := scope.Undefined()
	if len(names) == 0 {
		return nil
	}
	var candidates []string
	if scope.Size() <= maxCandidates { // sorting them costs more than they help
		candidates = scope.Names()
	}
	var found []containerfile.Warning
	for _, name := range names {
		near := containerfile.Nearest(name, candidates)
		if likely != nil && !likely(name, near) {
			continue
		}
		rule := &linter.RuleUndefinedVar
		if w, ok := f.Violation(ins, stage, rule, rule.Format(name, near)); ok {
			found = append(found, w)
		}
	}
	return found
}

// Ignored applies the rule CopyIgnoredFile to an expanded COPY or ADD; hides
// tells whether the ignore file leaves a source out.
func Ignored(f *containerfile.File, ins containerfile.Instruction, stage int, cmd instructions.Command, hides func(source string) bool) []containerfile.Warning {
	var sources []string
	name := "Copy"
	switch c := cmd.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			sources = c.SourcePaths
		}
	case *instructions.AddCommand:
		name = "Add"
		for _, s := range c.SourcePaths {
			if !strings.Contains(s, "://") && !strings.HasPrefix(s, "git@") {
				sources = append(sources, s)
			}
		}
	}
	var found []containerfile.Warning
	for _, s := range sources {
		if !hides(s) {
			continue
		}
		rule := &linter.RuleCopyIgnoredFile
		if w, ok := f.Violation(ins, stage, rule, rule.Format(name, s)); ok {
			found = append(found, w)
		}
	}
	return found
}
