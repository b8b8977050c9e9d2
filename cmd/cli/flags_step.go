package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// stepFlags are of the commands that execute one step: run, copy and add.
type stepFlags struct{ addHistory, cached, noCache, explain bool }

func (s *stepFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&s.addHistory, "add-history", false, "add an entry to the history of the image")
	fs.BoolVar(&s.cached, "cached", false, "make a layer of the step, and take it from the build cache when it is there")
	fs.BoolVar(&s.noCache, "no-cache", false, "with --cached, execute the step in any case, and record its result")
	fs.BoolVar(&s.explain, "explain", false, "with --cached, say why the step was executed or not")
}

func (s *stepFlags) options(a *app, cmd *cobra.Command) (imagebuildah.StepOptions, error) {
	for flag, on := range map[string]bool{"explain": s.explain, "no-cache": s.noCache} {
		// A variable that holds for a whole script says nothing of one step.
		if on && !s.cached && a.fromEnv[flag] == "" {
			return imagebuildah.StepOptions{}, fmt.Errorf("--%s is of use with --cached only: %w", flag, define.ErrInvalid)
		}
	}
	return imagebuildah.StepOptions{
		Cached: s.cached, NoCache: s.cached && s.noCache, Explain: s.cached && s.explain, AddHistory: s.addHistory,
		Script: a.getenv(scriptVariable),
	}, nil
}

// keep ends a step that err ended: what it has changed stays in the container.
func (s *stepFlags) keep(ctx context.Context, c *builder.Container, err error) error {
	// Also of a step that failed, or was stopped.
	ctx = context.WithoutCancel(ctx)
	if s.cached {
		return errors.Join(err, c.Save(ctx))
	}
	err = errors.Join(err, c.Keep(ctx, layer.FreezeOptions{}))
	if err == nil && s.addHistory {
		err = c.Save(ctx)
	}
	return err
}
