package imagebuildah

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// instruction executes one instruction: its variables are filled in, then
// its family's method does the work.
func (s *stage) instruction(ctx context.Context, parsed *containerfile.Instruction) error {
	// Expanding changes the command in place; the file is not ours to change.
	fresh := *parsed
	fresh.Command = parsed.Fresh()
	in := &fresh
	if err := s.scope.ExpandCommand(in.Command); err != nil {
		return err
	}
	if err := s.lint(parsed, in.Command); err != nil {
		return err
	}
	switch cmd := in.Command.(type) {
	case *instructions.RunCommand:
		return s.runInstruction(ctx, in, cmd)
	case *instructions.CopyCommand:
		return s.copy(ctx, in, cmd)
	case *instructions.AddCommand:
		return s.add(ctx, in, cmd)
	case *instructions.WorkdirCommand:
		return s.workdir(ctx, in, cmd)
	case *instructions.ArgCommand:
		return s.arg(in, cmd)
	}
	step := s.nextStep(in)
	if err := s.configure(in); err != nil {
		return err
	}
	s.emit(define.Event{Kind: define.EventStepStart, Step: step})
	s.emit(define.Event{Kind: define.EventStepDone, Step: step})
	return nil
}

// configure changes the image's configuration; no instruction here touches a
// file.
func (s *stage) configure(in *containerfile.Instruction) error {
	switch cmd := in.Command.(type) {
	case *instructions.EnvCommand:
		return s.env(cmd)
	case *instructions.LabelCommand:
		return s.label(cmd)
	case *instructions.UserCommand:
		return s.user(cmd)
	case *instructions.VolumeCommand:
		return s.volume(cmd)
	case *instructions.ExposeCommand:
		return s.expose(cmd)
	case *instructions.EntrypointCommand:
		return s.entrypoint(cmd)
	case *instructions.CmdCommand:
		return s.cmd(cmd)
	case *instructions.HealthCheckCommand:
		return s.healthcheck(cmd)
	case *instructions.ShellCommand:
		return s.shell(cmd)
	case *instructions.StopSignalCommand:
		return s.stopSignal(cmd)
	case *instructions.OnbuildCommand:
		return s.onbuild(cmd)
	case *instructions.MaintainerCommand:
		return s.maintainer(cmd)
	}
	return fmt.Errorf("%s is not in this version of strata: %w", in.Keyword, define.ErrUnsupported)
}
