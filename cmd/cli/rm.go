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
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return fmt.Errorf("rm: want containers or --all, one of them: %w", define.ErrInvalid)
			case all:
				return nil
			}
			return wantArgs(1, -1, "containers or --all")(cmd, args)
		},
		ValidArgsFunction: a.completeContainers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			if all {
				if args, err = ourContainers(cmd.Context(), engine); err != nil {
					return err
				}
			}
			var failed []error
			for _, name := range args {
				id, err := engine.RemoveContainer(cmd.Context(), name)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				a.println(id)
			}
			return errors.Join(failed...)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove all containers that strata made")
	return cmd
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
