package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/transport"
)

func newTagCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "tag image name...",
		Short: "Give an image further names",
		Long: `Give an image of the store further names. A name that another image had moves to
this one. Names without a registry get localhost/, names without a tag :latest.`,
		Example: `  strata tag hello hello:1.0 registry.example/team/hello:1.0`,
		Args:    wantArgs(2, -1, "an image and at least one new name"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
			return a.completeImages(0)(cmd, args, start)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var names []string
			for _, n := range args[1:] {
				full, err := transport.NormalizeTag(n)
				if err != nil {
					return err
				}
				names = append(names, full)
			}
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			local, err := engine.Transport().FindEntry(args[0])
			if err != nil {
				return err
			}
			if err := engine.Store().Raw().AddNames(string(local.ID), names); err != nil {
				return fmt.Errorf("image %s: %w", args[0], err)
			}
			return nil
		},
	}
}
