package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

func newPullCommand(a *app) *cobra.Command {
	var (
		registry registryFlags
		platform platformFlags
		policy   string
		quiet    bool
	)
	cmd := &cobra.Command{
		Use:   "pull [flags] image",
		Short: "Fetch an image into the store",
		Long: `Fetch an image into the store: from a registry, or, with a transport in front of
its name, from an OCI layout (oci:), an archive (oci-archive:, docker-archive:)
or a directory (dir:). Standard output gets the image's ID.`,
		Example: `  strata pull registry.example/library/busybox:1.36
  strata pull oci:./layout:busybox
  strata pull --platform linux/arm64 busybox`,
		Args: wantArgs(1, 1, "one image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := refuseEnv(a); err != nil {
				return err
			}
			transport, err := registry.options(cmd, true)
			if err != nil {
				return err
			}
			platforms, err := platform.options()
			if err != nil {
				return err
			}
			var want define.Platform
			if len(platforms) > 0 {
				want = platforms[0]
			}
			p, err := define.ParsePullPolicy(policy)
			if err != nil {
				return fmt.Errorf("--policy: %w", err)
			}
			if err := a.enter(false); err != nil {
				return err
			}
			a.startDisplay(quietMode(quiet))
			engine, err := a.openEngine(cmd.Context(), builder.Options{Store: a.global.store(), Transport: transport, Listener: a.display})
			if err != nil {
				return err
			}
			local, err := engine.Transport().Pull(cmd.Context(), args[0], want, p)
			if err != nil {
				return err
			}
			a.closeDisplay()
			a.println(string(local.ID))
			return nil
		},
	}
	registry.add(cmd)
	platform.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&policy, "policy", "missing", "when to fetch although the store has the image: missing, always, newer or never; give the `policy`")
	fs.BoolVarP(&quiet, "quiet", "q", false, "print nothing but the image's ID")
	_ = cmd.RegisterFlagCompletionFunc("policy", fixedValues("missing", "always", "newer", "never"))
	return cmd
}

func quietMode(quiet bool) ui.Mode {
	if quiet {
		return ui.ModeQuiet
	}
	return ui.ModeAuto
}
