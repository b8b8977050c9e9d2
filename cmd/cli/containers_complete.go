package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// completeContainers completes the names of working containers, and their IDs
// once two digits are written.
func (a *app) completeContainers(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		engine, err := a.openStore(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		containers, err := engine.Store().Raw().Containers()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var found []string
		for i := range containers {
			for _, n := range containers[i].Names {
				if strings.HasPrefix(n, start) && !slices.Contains(args, n) {
					found = append(found, n)
				}
			}
			if len(start) >= 2 && strings.HasPrefix(containers[i].ID, start) {
				found = append(found, containers[i].ID[:12])
			}
		}
		slices.Sort(found)
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}
