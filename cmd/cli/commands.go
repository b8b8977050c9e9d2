package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// command is a command of the root, as long as nobody needs more of it.
type command struct {
	make func(*app) *cobra.Command
	// names are its own name, then its aliases, as the made one has them.
	names []string
}

// commands are all of them.
func commands() []command {
	return []command{
		{newBuildCommand, []string{"build", "bud", "build-using-dockerfile"}},
		{newImagesCommand, []string{"images"}},
		{newRmiCommand, []string{"rmi"}},
		{newTagCommand, []string{"tag"}},
		{newInspectCommand, []string{"inspect"}},
		{newHistoryCommand, []string{"history"}},
		{newPullCommand, []string{"pull"}},
		{newPushCommand, []string{"push"}},
		{newManifestCommand, []string{"manifest"}},
		{newLoginCommand, []string{"login"}},
		{newLogoutCommand, []string{"logout"}},
		{newPruneCommand, []string{"prune"}},
		{newInfoCommand, []string{"info"}},
		{newDoctorCommand, []string{"doctor"}},
		{newVersionCommand, []string{"version"}},
		{newCompletionCommand, []string{"completion"}},
		{newContainersCommand, []string{"containers", "list", "ls", "ps"}},
		{newRenameCommand, []string{"rename"}},
		{newMountCommand, []string{"mount"}},
		{newUmountCommand, []string{"umount", "unmount"}},
		{newUnshareCommand, []string{"unshare"}},
		{newFromCommand, []string{"from"}},
		{newRunCommand, []string{"run"}},
		{newRmCommand, []string{"rm", "delete"}},
		{newConfigCommand, []string{"config"}},
		{newCommitCommand, []string{"commit"}},
		{newCopyCommand, []string{"copy"}},
		{newAddCommand, []string{"add"}},
		{newScriptCommand, []string{"script"}},
		{newDebugCommand, []string{"debug"}},
	}
}

// commandsFor are those that these arguments may be for. The flags of all
// commands take longer to make than most commands to do their work, so only
// those are made whose name is among the arguments, wherever it stands; all
// when there is none, and where the tree itself is asked for.
func commandsFor(args []string) []command {
	all := commands()
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) || slices.Contains(args, "help") {
		return all
	}
	var some []command
	for _, c := range all {
		if slices.ContainsFunc(c.names, func(name string) bool { return slices.Contains(args, name) }) {
			some = append(some, c)
		}
	}
	if some == nil {
		return all
	}
	return some
}

// commandNames are the words that stand for a command.
func commandNames() []string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.names...)
	}
	return names
}
