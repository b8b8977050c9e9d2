package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

func newLogoutCommand(a *app) *cobra.Command {
	var (
		registry registryFlags
		all      bool
	)
	cmd := &cobra.Command{
		Use:   "logout [flags] [registry]",
		Short: "Forget the credentials of a registry",
		Long:  "Forget the credentials of a registry, or of all registries.",
		Example: `  strata logout registry.example
  strata logout --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return fmt.Errorf("logout: want a registry, or --all: %w", define.ErrInvalid)
			}
			return wantArgs(0, 1, "one registry")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := registry.options(cmd, false)
			if err != nil {
				return err
			}
			name := ""
			if !all {
				name = args[0]
			}
			if err := transport.New(nil, options, nil).Logout(cmd.Context(), name, all); err != nil {
				return err
			}
			if all {
				a.println("Removed login credentials for all registries")
			} else {
				a.println("Removed login credentials for " + name)
			}
			return nil
		},
	}
	registry.addAuthfile(cmd)
	registry.addCompatAuthfile(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "forget the credentials of all registries")
	return cmd
}
