package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

type pullFlags struct {
	registry                         registryFlags
	platform                         platformFlags
	policy                           string
	allTags, quiet, removeSignatures bool
}

func newPullCommand(a *app) *cobra.Command {
	var flags pullFlags
	cmd := &cobra.Command{
		Use:   "pull [flags] image",
		Short: "Fetch an image into the store",
		Long: `Fetch an image into the store: from a registry, or, with a transport in front of
its name, from an OCI layout (oci:), an archive (oci-archive:, docker-archive:)
or a directory (dir:). Standard output gets the image's ID; with several
platforms or --all-tags one ID a line. Of the images of several platforms the
last one has the name, and the others are found by name and platform.`,
		Example: `  strata pull registry.example/library/busybox:1.36
  strata pull oci:./layout:busybox
  strata pull --platform linux/arm64,linux/amd64 busybox
  strata pull --all-tags registry.example/team/hello`,
		Args: wantArgs(1, 1, "one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return runPull(a, cmd, &flags, args[0]) },
	}
	flags.registry.add(cmd)
	flags.registry.addDecryption(cmd)
	addBlobCache(cmd)
	flags.platform.addFor(cmd, "fetch the image of this `os/arch[/variant]` (default: this machine's); several, between commas or repeated, are fetched in turn")
	fs := cmd.Flags()
	fs.BoolVarP(&flags.allTags, "all-tags", "a", false, "fetch all tags of the repository")
	fs.StringVar(&flags.policy, "policy", "missing", "when to fetch although the store has the image: missing, always, newer or never; give the `policy`")
	fs.BoolVarP(&flags.quiet, "quiet", "q", false, "print nothing but the image's ID")
	fs.BoolVar(&flags.removeSignatures, "remove-signatures", false, "do not store the image's signatures")
	_ = cmd.RegisterFlagCompletionFunc("policy", fixedValues("missing", "always", "newer", "never"))
	return cmd
}

func runPull(a *app, cmd *cobra.Command, flags *pullFlags, name string) error {
	access, err := flags.registry.options(cmd, true)
	if err != nil {
		return err
	}
	access.RemoveSignatures = flags.removeSignatures
	platforms, err := flags.platform.options()
	if err != nil {
		return err
	}
	if len(platforms) == 0 {
		platforms = []define.Platform{{}}
	}
	policy, err := define.ParsePullPolicy(flags.policy)
	if err != nil {
		return fmt.Errorf("--policy: %w", err)
	}
	if err := a.enter(false); err != nil {
		return err
	}
	a.startDisplay(quietMode(flags.quiet))
	engine, err := a.openEngine(cmd.Context(), builder.Options{Store: a.global.store(), Transport: access, Listener: a.display})
	if err != nil {
		return err
	}
	var ids []string
	for _, p := range platforms {
		pulled, err := pullOne(cmd.Context(), engine.Transport(), name, p, policy, flags.allTags)
		// What was fetched before a failure is there, and is said.
		for _, l := range pulled {
			ids = append(ids, string(l.ID))
		}
		if err != nil {
			a.closeDisplay()
			a.printLines(ids)
			return err
		}
	}
	a.closeDisplay()
	a.printLines(ids)
	return nil
}

func pullOne(ctx context.Context, c *transport.Client, name string, p define.Platform, policy define.PullPolicy, allTags bool) ([]transport.Local, error) {
	if allTags {
		return c.PullTags(ctx, name, p, policy)
	}
	l, err := c.Pull(ctx, name, p, policy)
	if err != nil {
		return nil, err
	}
	return []transport.Local{l}, nil
}

func (a *app) printLines(lines []string) {
	for _, l := range lines {
		a.println(l)
	}
}

func quietMode(quiet bool) ui.Mode {
	if quiet {
		return ui.ModeQuiet
	}
	return ui.ModeAuto
}
