package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
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
		Args:              containersOrAll(&all),
		ValidArgsFunction: a.completeContainers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachContainer(cmd.Context(), args, all, func(e *builder.Engine, name string) (string, error) {
				return unmountContainer(cmd.Context(), e, name)
			})
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
