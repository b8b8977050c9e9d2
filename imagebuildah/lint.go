package imagebuildah

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/check"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// lint applies the rules that need what only a build knows, the base image's
// environment and the context, to an instruction whose variables have been
// filled in. The error is what "# check=error=true" makes of a warning.
func (s *stage) lint(in *containerfile.Instruction, cmd instructions.Command) error {
	found := check.Undefined(s.b.file, *in, s.def.Index, s.scope, nil)
	switch cmd.(type) {
	case *instructions.CopyCommand, *instructions.AddCommand:
		found = append(found, check.Ignored(s.b.file, *in, s.def.Index, cmd, s.b.context.HidesSource)...)
	}
	return s.report(found)
}

// lintPlatform applies the rule InvalidBaseImagePlatform.
func (s *stage) lintPlatform(base string, want define.Platform) error {
	got := s.c.Image.Platform
	if base == "scratch" || got.OS == want.OS && got.Architecture == want.Architecture {
		return nil
	}
	rule := &linter.RuleInvalidBaseImagePlatform
	w, ok := s.b.file.Violation(s.def.From, s.def.Index, rule, rule.Format(base, define.FormatPlatform(want), define.FormatPlatform(got)))
	if !ok {
		return nil
	}
	return s.report([]containerfile.Warning{w})
}

// report emits warnings; the error is that of the first that is to be one.
func (s *stage) report(found []containerfile.Warning) error {
	for _, w := range found {
		if err := s.b.file.AsError(w); err != nil {
			return err
		}
		s.emit(define.Event{Kind: define.EventWarning, Text: w.String(), File: w.File, Line: w.Line})
	}
	return nil
}
