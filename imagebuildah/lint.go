package imagebuildah

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
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
	for _, w := range found {
		if err := s.b.file.AsError(w); err != nil {
			return err
		}
		s.emit(define.Event{Kind: define.EventWarning, Text: w.String(), File: w.File, Line: w.Line})
	}
	return nil
}
