package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/define"
)

func newRmCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "rm [flags] container...",
		Aliases: []string{"delete"},
		Short:   "Remove working containers",
		Long: `Remove working containers with all that was changed in them. Standard output gets
the ID of each.

When some of several containers cannot be removed, the others are, and the exit
status is 125.`,
		Example: `  strata rm app
  strata rm --all`,
		Args:              containersOrAll(&all),
		ValidArgsFunction: a.completeContainers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachContainer(cmd.Context(), args, all, func(e *builder.Engine, name string) (string, error) {
				return e.RemoveContainer(cmd.Context(), name)
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove all containers that strata made")
	return cmd
}

// containersOrAll wants names of containers, or --all in their place.
func containersOrAll(all *bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case *all && len(args) > 0:
			return fmt.Errorf("%s: want containers or --all, one of them: %w", cmd.Name(), define.ErrInvalid)
		case *all:
			return nil
		}
		return wantArgs(1, -1, "containers or --all")(cmd, args)
	}
}

// eachContainer does something to each of the containers and prints the IDs
// that do returns. When some fail, the others are done all the same.
func (a *app) eachContainer(ctx context.Context, names []string, all bool, do func(*builder.Engine, string) (string, error)) error {
	engine, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	if all {
		if names, err = ourContainers(ctx, engine); err != nil {
			return err
		}
	}
	var failed []error
	for _, name := range names {
		id, err := do(engine, name)
		if err != nil {
			failed = append(failed, err)
		} else if id != "" {
			a.println(id)
		}
	}
	return errors.Join(failed...)
}

// ourContainers are the IDs of the containers that strata made.
func ourContainers(ctx context.Context, e *builder.Engine) ([]string, error) {
	infos, err := e.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, i := range infos {
		if i.Ours {
			ids = append(ids, i.ID)
		}
	}
	return ids, nil
}
