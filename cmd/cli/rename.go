package cli

import (
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
)

func newRenameCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rename container name",
		Short:             "Give a working container another name",
		Long:              "Give a working container another name. Its ID stays.",
		Example:           `  strata rename alpine-working-container app`,
		Args:              wantArgs(2, 2, "a container and its new name"),
		ValidArgsFunction: a.completeContainers(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := builder.CheckContainerName(args[1]); err != nil {
				return err
			}
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			c, err := a.openContainer(cmd, engine, args[0])
			if err != nil {
				return err
			}
			return c.Rename(cmd.Context(), args[1])
		},
	}
}
