package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/define"
)

func newUmountCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "umount [flags] container...",
		Aliases: []string{"unmount"},
		Short:   "End mounts of working containers",
		Long: `End what mount did, however often. Standard output gets the ID of each container
that was mounted.

When some of several containers cannot be unmounted, the others are, and the
exit status is 125.`,
		Example: `  strata umount app
  strata umount --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return fmt.Errorf("umount: want containers or --all, one of them: %w", define.ErrInvalid)
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
				id, err := unmountContainer(cmd.Context(), engine, name)
				if err != nil {
					failed = append(failed, err)
				} else if id != "" {
					a.println(id)
				}
			}
			return errors.Join(failed...)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "unmount all containers that strata made")
	return cmd
}

// unmountContainer returns the ID of the container when it was mounted.
func unmountContainer(ctx context.Context, e *builder.Engine, name string) (string, error) {
	c, err := e.OpenContainer(ctx, name)
	if err != nil {
		return "", err
	}
	was, err := c.Unmount(ctx)
	err = errors.Join(err, c.Close())
	if !was {
		return "", err
	}
	return c.ID(), err
}
