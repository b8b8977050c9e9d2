package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

type runCommandFlags struct {
	env        []string
	user, dir  string
	hostname   string
	noHosts    bool
	noHostname bool

	run runFlags
}

func newRunCommand(a *app) *cobra.Command {
	f := &runCommandFlags{}
	cmd := &cobra.Command{
		Use:   "run [flags] container [--] command [argument...]",
		Short: "Run a command in a working container",
		Long: `Run a command in a working container; what it changes stays there. The command is
executed as it is, without a shell and without the image's entry point. Flags
stand before the container's name: what follows it is the command.

Standard input, output and error are the command's own, and its exit status is
that of strata.`,
		Example: `  strata run app apk add curl
  strata run --user nobody --env LANG=C app -- sh -c 'id; env'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || args[1] == "--" && len(args) < 3 {
				return fmt.Errorf("run needs a container and a command; see strata run --help: %w", define.ErrInvalid)
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args) },
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set a variable for the command, as `name=value`; without =value it is taken from the environment")
	fs.StringVar(&f.user, "user", "", "run as this `user[:group]` instead of the image's")
	fs.StringVar(&f.dir, "workingdir", "", "run in this `directory` instead of the image's")
	fs.StringVar(&f.hostname, "hostname", "", "the host `name` that the command sees")
	fs.BoolVar(&f.noHosts, "no-hosts", false, "leave the image's /etc/hosts to the command")
	fs.BoolVar(&f.noHostname, "no-hostname", false, "leave the image's /etc/hostname to the command")
	f.run.add(cmd)
	return cmd
}

func (f *runCommandFlags) execute(a *app, cmd *cobra.Command, args []string) error {
	name, command := args[0], args[1:]
	if command[0] == "--" {
		command = command[1:]
	}
	o := builder.Options{Store: a.global.store()}
	var err error
	if o.Isolation, o.Runtime, o.RuntimeFlags, err = f.run.engine(a); err != nil {
		return err
	}
	given, err := f.run.options()
	if err != nil {
		return err
	}
	given.Hostname, given.NoHosts, given.NoHostname = f.hostname, f.noHosts, f.noHostname
	env, err := f.environment(a)
	if err != nil {
		return err
	}
	if err := a.enter(true); err != nil {
		return err
	}
	a.startDisplay(ui.ModePlain)
	o.Listener = a.display
	engine, err := a.openEngine(cmd.Context(), o)
	if err != nil {
		return err
	}
	c, err := engine.OpenContainer(cmd.Context(), name)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, c.Close)
	err = c.Run(cmd.Context(), builder.Run{
		Args: command, Env: env, User: f.user, Dir: f.dir,
		Stdin: a.std.In, Stdout: a.std.Out, Stderr: a.std.Err,
		Confinement: overrideRun(*c.Defaults(), given, cmd.Flags().Changed),
	})
	// Also what a command has done that failed, or was stopped, stays.
	return errors.Join(err, c.Keep(context.WithoutCancel(cmd.Context()), layer.FreezeOptions{}))
}

// environment returns what --env says; a variable that is not set anywhere is
// left out, as docker and podman do.
func (f *runCommandFlags) environment(a *app) ([]string, error) {
	var env []string
	for _, e := range f.env {
		name, _, ok := strings.Cut(e, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q: want name=value, or the name of a variable: %w", e, define.ErrInvalid)
		}
		if !ok {
			v, set := os.LookupEnv(name)
			if !set {
				continue
			}
			e = name + "=" + v
		}
		env = append(env, e)
	}
	return env, nil
}
