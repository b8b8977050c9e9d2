package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

type runCommandFlags struct {
	env, mounts         []string
	user, dir, hostname string
	terminal            bool
	contextDir          string
	validExitCodes      []int32

	step stepFlags
	run  runFlags
}

func newRunCommand(a *app) *cobra.Command {
	f := &runCommandFlags{}
	cmd := &cobra.Command{
		Use:   "run [flags] container [--] command [argument...]",
		Short: "Run a command in a working container",
		Long: `Run a command in a working container; what it changes stays there, also when it
fails. The command is executed as it is, without a shell and without the image's
entry point. Flags stand before the container's name: what follows it is the
command.

Standard input, output and error are the command's own, and its exit status is
that of strata: 127 when the command is not found, 126 when it cannot be executed,
128+N when signal N has ended it, and 130 after Ctrl-C.

With --cached the command is executed only when the cache does not know its
result: the same command on the same files, as RUN in a Containerfile. Its changes
are then a layer of their own. STRATA_CACHED=1 and STRATA_EXPLAIN=1 do that for a
whole script.`,
		Example: `  strata run app apk add curl
  strata run --user nobody --env LANG=C app -- sh -c 'id; env'
  strata run -t app sh
  strata run --cached --mount type=cache,target=/var/cache/apk app apk add git`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || args[1] == "--" && len(args) < 3 {
				return fmt.Errorf("run needs a container and a command; see strata run --help: %w", define.ErrInvalid)
			}
			return nil
		},
		ValidArgsFunction: a.completeContainers(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args) },
	}
	f.add(cmd)
	return cmd
}

func (f *runCommandFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	otherNames(fs, map[string]string{"tty": "terminal", "cwd": "workingdir", "net": "network"})
	fs.StringVar(&f.contextDir, "contextdir", "", "take the sources of --mount type=bind from this `directory`")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set a variable for the command, as `name=value`; without =value it is taken from the environment")
	fs.StringVar(&f.hostname, "hostname", "", "the host `name` that the command sees")
	fs.StringArrayVar(&f.mounts, "mount", nil, "mount as RUN --mount does: `type=bind|cache|secret|ssh|tmpfs,...`; may be repeated")
	fs.Bool("no-pivot", false, "accepted for buildah's sake, without effect: pivot_root(2) works on a ramdisk here too")
	fs.BoolVarP(&f.terminal, "terminal", "t", false, "give the command a terminal, --tty for short (default: when standard input and output are one)")
	fs.StringVar(&f.user, "user", "", "run as this `user[:group]` instead of the image's")
	fs.Int32SliceVar(&f.validExitCodes, "valid-exit-codes", []int32{0}, "exit `statuses` of the command that are no failure")
	fs.StringVar(&f.dir, "workingdir", "", "run in this `directory` instead of the image's")
	f.step.add(cmd)
	f.run.add(cmd)
	f.run.addHostFiles(cmd)
	_ = cmd.MarkFlagDirname("contextdir")
}

// otherNames takes further names for flags, which buildah has too.
func otherNames(fs *pflag.FlagSet, names map[string]string) {
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(or(names[name], name))
	})
}

// runRequest is what the flags of one run come to.
type runRequest struct {
	engine  builder.Options
	options imagebuildah.CommandOptions
	// given is what the flags say of the command's confinement.
	given builder.Confinement
	// terminal: the command gets one.
	terminal bool
}

// request checks every value and translates the flags. It touches no store.
func (f *runCommandFlags) request(a *app, cmd *cobra.Command, command []string) (*runRequest, error) {
	r := &runRequest{engine: builder.Options{Store: a.global.store(), OneStep: true}}
	r.options = imagebuildah.CommandOptions{
		Args: command, User: f.user, Dir: f.dir, Mounts: f.mounts, ContextDir: f.contextDir,
		Stdin: a.std.In, Stdout: a.std.Out, Stderr: a.std.Err,
	}
	o := &r.options
	var err error
	if o.StepOptions, err = f.step.options(a, cmd); err != nil {
		return nil, err
	}
	if r.engine.Isolation, r.engine.Runtime, r.engine.RuntimeFlags, err = f.run.engine(a); err != nil {
		return nil, err
	}
	if r.given, err = f.run.options(); err != nil {
		return nil, err
	}
	if err := a.defaultMounts(&r.given); err != nil {
		return nil, err
	}
	r.given.Hostname = f.hostname
	if o.Env, err = f.environment(); err != nil {
		return nil, err
	}
	terminal := cmd.Flags().Changed("terminal")
	switch {
	case o.Cached && terminal && f.terminal:
		return nil, fmt.Errorf("--cached and --terminal: what is typed is no part of what the cache knows; leave one out: %w", define.ErrInvalid)
	case o.Cached:
		o.Stdin = nil
	case terminal:
		r.terminal = f.terminal
	default:
		r.terminal = isTerminal(a.std.In) && isTerminal(a.std.Out)
	}
	return r, nil
}

func (f *runCommandFlags) execute(a *app, cmd *cobra.Command, args []string) error {
	name, command := args[0], args[1:]
	if command[0] == "--" {
		command = command[1:]
	}
	r, err := f.request(a, cmd, command)
	if err != nil {
		return err
	}
	if r.terminal {
		restore := keepTerminal(a.std.In)
		beforeForcedExit(cmd.Context(), restore)
		a.afterWorker = restore
	}
	if err := a.enter(true); err != nil {
		return err
	}
	a.startDisplay(ui.ModePlain)
	r.engine.Listener = a.display
	engine, err := a.openEngine(cmd.Context(), r.engine)
	if err != nil {
		return err
	}
	c, err := a.openContainer(cmd, engine, name)
	if err != nil {
		return err
	}
	if err := f.preferences(a, engine, c); err != nil {
		return err
	}
	if !r.options.Cached {
		engine.Prepare(cmd.Context())
	}
	o := &r.options
	o.Confinement = overrideRun(*c.Defaults(), r.given, cmd.Flags().Changed)
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	if r.terminal {
		o.Env = f.terminalType(a, c, o.Env)
		user := &userTerminal{a.std.In, a.std.Out, func(s syscall.Signal) { cancel(&Interrupted{s}) }}
		o.Terminal = user.terminal()
	}
	_, err = imagebuildah.Run(ctx, c, *o)
	return f.step.keep(cmd.Context(), c, f.success(err))
}

// preferences applies how the container wants to be isolated where no flag of
// this run says otherwise. BUILDAH_ISOLATION, a habit of the environment, is
// outdone by it.
func (f *runCommandFlags) preferences(a *app, e *builder.Engine, c *builder.Container) error {
	s := c.Settings()
	if s.Isolation == "" && s.Runtime == "" {
		return nil
	}
	return e.Prefer(s, a.fromEnv["isolation"] == "BUILDAH_ISOLATION")
}

// success takes an exit status that --valid-exit-codes names for none.
func (f *runCommandFlags) success(err error) error {
	var exit *isolation.ExitError
	if errors.As(err, &exit) && slices.Contains(f.validExitCodes, int32(exit.Code)) {
		return nil
	}
	return err
}

// terminalType tells the command what the user's terminal can do, unless
// somebody has said it.
func (f *runCommandFlags) terminalType(a *app, c *builder.Container, env []string) []string {
	if _, ok := c.Image.Env("TERM"); ok || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		return env
	}
	return append(env, "TERM="+or(a.getenv("TERM"), "xterm"))
}

// environment returns what --env says; a variable that is not set anywhere is
// left out, as docker and podman do.
func (f *runCommandFlags) environment() ([]string, error) {
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
