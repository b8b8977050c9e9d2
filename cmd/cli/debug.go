package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

type debugFlags struct {
	user, dir string
	env       []string
	run       runFlags
}

func newDebugCommand(a *app) *cobra.Command {
	f := &debugFlags{}
	cmd := &cobra.Command{
		Use:   "debug [flags] container-or-image",
		Short: "Open a shell in a working container or an image",
		Long: `Open an interactive shell in a working container, with its files, environment,
user and the settings that it was made with; what is changed there stays. In an
image, what is changed goes when the shell ends.

For the step of a build that fails, there is build --on-error=shell; for the
containers of a script that fails, script --keep.`,
		Example: `  strata debug app
  strata debug --user root localhost/hello:latest`,
		Args:              wantArgs(1, 1, "one container or image"),
		ValidArgsFunction: a.completeContainers(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set a variable for the shell, as `name=value`")
	fs.StringVarP(&f.user, "user", "u", "", "be this `user[:group]` instead of the image's")
	fs.StringVar(&f.dir, "workingdir", "", "start in this `directory` instead of the image's")
	f.run.add(cmd)
	return cmd
}

func (f *debugFlags) execute(a *app, cmd *cobra.Command, name string) error {
	o := builder.Options{Store: a.global.store()}
	var err error
	if o.Isolation, o.Runtime, o.RuntimeFlags, err = f.run.engine(a); err != nil {
		return err
	}
	given, err := f.run.options()
	if err != nil {
		return err
	}
	for _, kv := range f.env {
		if k, _, ok := strings.Cut(kv, "="); k == "" || !ok {
			return fmt.Errorf("--env %q: want name=value: %w", kv, define.ErrInvalid)
		}
	}
	if err := a.wantTerminal("debug"); err != nil {
		return err
	}
	a.guardTerminal(cmd)
	if err := a.enter(true); err != nil {
		return err
	}
	a.startDisplay(ui.ModePlain)
	o.Listener = a.display
	engine, err := a.openEngine(cmd.Context(), o)
	if err != nil {
		return err
	}
	c, err := openForDebug(cmd.Context(), engine, name)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, c.Close)
	confinement := given
	if c.ID() != "" {
		confinement = overrideRun(*c.Defaults(), given, cmd.Flags().Changed)
		if err := engine.Prefer(c.Settings(), false); err != nil {
			return err
		}
	}
	shell, err := imagebuildah.FindShell(cmd.Context(), c)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err = a.runShell(cmd.Context(), shell, func(ctx context.Context, r builder.Run) error {
		r.Env, r.User, r.Dir, r.Confinement = append(r.Env, f.env...), f.user, f.dir, confinement
		return c.Run(ctx, r)
	})
	var exit *isolation.ExitError
	if errors.As(err, &exit) {
		err = &errStatus{exit.Code} // the last command's, as shells have it
	}
	if c.ID() != "" {
		err = errors.Join(err, c.Keep(context.WithoutCancel(cmd.Context()), layer.FreezeOptions{}))
	}
	return err
}

// openForDebug opens a stored container, or makes one of an image that ends
// with this process.
func openForDebug(ctx context.Context, e *builder.Engine, name string) (*builder.Container, error) {
	c, err := e.OpenContainer(ctx, name)
	if !errors.Is(err, define.ErrNotFound) {
		return c, err
	}
	local, imageErr := e.Transport().FindLocal(name, define.Platform{})
	if errors.Is(imageErr, define.ErrNotFound) {
		return nil, err
	}
	if imageErr != nil {
		return nil, imageErr
	}
	return e.From(ctx, builder.FromOptions{Image: string(local.ID), Pull: define.PullNever})
}

// runShell runs an interactive shell on the user's terminal by run.
func (a *app) runShell(ctx context.Context, args []string, run func(context.Context, builder.Run) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Standard output may be taken by somebody who wants the result.
	user := &userTerminal{a.std.In, a.std.Err, func(s syscall.Signal) { cancel(&Interrupted{s}) }}
	return run(ctx, builder.Run{
		Args: args, Env: []string{"TERM=" + or(a.getenv("TERM"), "xterm")},
		Stdin: a.std.In, Stdout: a.std.Err, Stderr: a.std.Err, Terminal: user.terminal(),
	})
}

// wantTerminal fails where nobody could type.
func (a *app) wantTerminal(what string) error {
	if !isTerminal(a.std.In) {
		return fmt.Errorf("%s wants a terminal as standard input: %w", what, define.ErrInvalid)
	}
	return nil
}

// guardTerminal has the terminal's state set again however the program ends.
func (a *app) guardTerminal(cmd *cobra.Command) {
	restore := keepTerminal(a.std.In)
	beforeForcedExit(cmd.Context(), restore)
	a.afterWorker = restore
}

// onError is build --on-error=shell: a shell in the step that failed, then the
// question whether to run it again.
func (a *app) onError(ctx context.Context, f *imagebuildah.FailedStep) (again bool, err error) {
	where := "the step"
	if f.Step != nil && f.Step.Text != "" {
		where = f.Step.Text
	}
	shell, err := f.Shell(ctx)
	if err != nil {
		a.say(fmt.Sprintf("%s failed: %v. %v.", where, f.Err, err))
		return a.askAgain(ctx)
	}
	a.say(fmt.Sprintf("%s failed: %v. This is a shell in its place; exit it to go on.", where, f.Err))
	err = a.runShell(ctx, shell, f.Run)
	var exit *isolation.ExitError
	if err != nil && !errors.As(err, &exit) { // that is the status of the last command
		return false, err
	}
	return a.askAgain(ctx)
}

func (a *app) say(text string) { _, _ = fmt.Fprintln(a.std.Err, ui.Clean(text)) }

// askAgain asks until the answer is one; the end of input, or of patience, is no.
func (a *app) askAgain(ctx context.Context) (again bool, err error) {
	lines := make(chan string)
	in := bufio.NewReader(a.std.In)
	for {
		_, _ = fmt.Fprint(a.std.Err, "Run the step again, or abort? [r/a] ")
		go func() {
			line, err := in.ReadString('\n')
			if err != nil {
				line = "a"
			}
			lines <- line
		}()
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case line := <-lines:
			switch strings.ToLower(strings.TrimSpace(line)) {
			case "r", "retry":
				return true, nil
			case "a", "abort":
				return false, nil
			}
		}
	}
}

// planOnError is about steps that fail. The shell needs the terminal for
// itself.
func (b *buildFlags) planOnError(a *app, p *buildPlan) error {
	switch b.onError {
	case "abort":
		return nil
	case "shell":
	default:
		return fmt.Errorf("--on-error %q: want abort or shell: %w", b.onError, define.ErrInvalid)
	}
	if err := a.wantTerminal("--on-error=shell"); err != nil {
		return err
	}
	if p.mode == ui.ModeAuto || p.mode == ui.ModeTTY {
		p.mode = ui.ModePlain
	}
	p.build.OnError, p.build.Jobs = a.onError, 1
	return nil
}
