package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

var shells = []string{"bash", "fish", "powershell", "zsh"}

func newCompletionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion shell",
		Short: "Print the completion script of a shell",
		Long: `Print the script that makes a shell complete strata's commands, flags and image
names. The shells are bash, fish, powershell and zsh.`,
		Example: `  strata completion bash > /etc/bash_completion.d/strata
  strata completion zsh > "${fpath[1]}/_strata"
  source <(strata completion bash)`,
		Args:      wantArgs(1, 1, "a shell (bash, fish, powershell or zsh)"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			case "zsh":
				return root.GenZshCompletion(a.out)
			}
			return fmt.Errorf("completion %q: want one of %s%s: %w", args[0], strings.Join(shells, ", "),
				didYouMean(args[0], shells, ""), define.ErrInvalid)
		},
	}
}

// fixedValues completes a flag from a list.
func fixedValues(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// completeImages completes the names of the store's images, and their IDs
// once two digits are written.
func (a *app) completeImages(most int) cobra.CompletionFunc {
	return a.completeStored(most, func(st storage.Store, start string) (found []string, err error) {
		images, err := st.Images()
		for _, i := range images {
			for _, n := range i.Names {
				found = append(found, matching(n, start)...)
			}
			found = append(found, matchingID(i.ID, start)...)
		}
		return found, err
	})
}

// completeContainers completes the names of working containers, and their IDs
// once two digits are written.
func (a *app) completeContainers(most int) cobra.CompletionFunc {
	return a.completeStored(most, func(st storage.Store, start string) (found []string, err error) {
		containers, err := st.Containers()
		for _, c := range containers {
			for _, n := range c.Names {
				if strings.HasPrefix(n, start) {
					found = append(found, n)
				}
			}
			found = append(found, matchingID(c.ID, start)...)
		}
		return found, err
	})
}

// completeStored completes what the store has, up to most arguments (0: any
// number), each once. A store that cannot be opened completes nothing.
func (a *app) completeStored(most int, find func(st storage.Store, start string) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		engine, err := a.openStore(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := find(engine.Store().Raw(), start)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slices.Sort(found)
		found = slices.DeleteFunc(slices.Compact(found), func(n string) bool { return slices.Contains(args, n) })
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// matchingID is the short form of an ID of which two digits are written.
func matchingID(id, start string) []string {
	if len(start) < 2 || !strings.HasPrefix(id, start) {
		return nil
	}
	return []string{define.ImageID(id).Short()}
}

// matching returns the spellings of an image's full name that begin with
// start: people leave localhost/ and docker.io/library/ out.
func matching(full, start string) []string {
	spellings := []string{full}
	for _, p := range []string{"localhost/", "docker.io/library/", "docker.io/"} {
		if short, ok := strings.CutPrefix(full, p); ok {
			spellings = append(spellings, short)
			break
		}
	}
	for _, s := range spellings {
		if strings.HasPrefix(s, start) {
			return []string{s}
		}
	}
	return nil
}
