package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// FailedStep is a RUN whose process has failed, with its root, its mounts and
// its environment still in place.
type FailedStep struct {
	// Step names the step; nil outside of builds.
	Step *define.Step
	// Err is an *isolation.ExitError.
	Err error
	// Args is the command that failed.
	Args []string
	// Shell finds a shell in the step's root.
	Shell func(context.Context) ([]string, error)
	// Run runs another process in place of the step's: as its user, with its
	// mounts and environment. Args, Stdin, Stdout, Stderr and Terminal of r
	// count, and Env is added.
	Run func(ctx context.Context, r builder.Run) error
}

// runOrAsk runs the step's process; when it fails, Options.OnError may look
// around and have it run once more. What a step gives that somebody has helped
// is no result for the cache.
func (s *stage) runOrAsk(ctx context.Context, r builder.Run) error {
	for {
		err := s.c.Run(ctx, r)
		var exit *isolation.ExitError
		if s.b.opts.OnError == nil || !errors.As(err, &exit) || ctx.Err() != nil {
			return err
		}
		s.helped = true
		shell := func(ctx context.Context) ([]string, error) { return FindShell(ctx, s.c) }
		again, askErr := s.b.opts.OnError(ctx, &FailedStep{Step: r.Step, Err: err, Args: r.Args, Shell: shell, Run: func(ctx context.Context, other builder.Run) error {
			one := r
			one.Args, one.Env = other.Args, append(append([]string(nil), r.Env...), other.Env...)
			one.Stdin, one.Stdout, one.Stderr = other.Stdin, other.Stdout, other.Stderr
			one.Terminal = other.Terminal
			return s.c.Run(ctx, one)
		}})
		if askErr != nil || !again {
			return errors.Join(err, askErr)
		}
	}
}

// shells are looked for in this order.
var shells = []string{"/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/busybox"}

// FindShell finds a shell in a container's root, and returns how to start it.
// Without one the error wraps define.ErrNotFound.
func FindShell(ctx context.Context, c *builder.Container) (args []string, err error) {
	err = c.View(ctx, func(root *copier.Root) error {
		for _, s := range shells {
			info, err := root.Stat(s, true)
			if err == nil && info.Mode.IsRegular() {
				args = []string{s}
				return nil
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return fmt.Errorf("there is no shell in it (%s): look at its files from outside: %w", strings.Join(shells, ", "), define.ErrNotFound)
	})
	if len(args) > 0 && args[0] == "/bin/busybox" {
		args = append(args, "sh")
	}
	return args, err
}
