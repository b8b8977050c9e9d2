package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

func newUnshareCommand(a *app) *cobra.Command {
	var mounts []string
	cmd := &cobra.Command{
		Use:   "unshare [flags] [--] [command [argument...]]",
		Short: "Run a command in the user namespace that strata works in",
		Long: `Run a command, or without one a shell ($SHELL, else /bin/sh), in the user and
mount namespace in which strata works for users other than root: the user is root
there, and has the ids of /etc/subuid and /etc/subgid. In it mount works, and
files of containers keep their owners. strata commands inside use the same
namespace. For root the command runs as it is: nothing is in its way.

The exit status is that of the command.`,
		Example: `  strata unshare
  strata unshare --mount root=app sh -c 'ls -l "$root"/etc'
  strata unshare ./build-script`,
		RunE: func(cmd *cobra.Command, args []string) error { return runUnshare(a, cmd, mounts, args) },
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringSliceVarP(&mounts, "mount", "m", nil, "mount a container for the time of the command, and put the path into a variable: `[VARIABLE=]container`; the variable's name is otherwise the container's")
	return cmd
}

// namedMount is one --mount.
type namedMount struct{ variable, container string }

func parseNamedMounts(words []string) ([]namedMount, error) {
	var list []namedMount
	for _, w := range words {
		variable, container, ok := strings.Cut(w, "=")
		if !ok {
			container = variable
		}
		if variable == "" || container == "" {
			return nil, fmt.Errorf("--mount %q: want [VARIABLE=]container: %w", w, define.ErrInvalid)
		}
		list = append(list, namedMount{variable, container})
	}
	return list, nil
}

func runUnshare(a *app, cmd *cobra.Command, words, args []string) error {
	mounts, err := parseNamedMounts(words)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{or(a.getenv("SHELL"), "/bin/sh")}
	}
	// Signals of the terminal are the command's: a shell lives on after them.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	ownSignals(cmd.Context())
	if err := a.enter(false); err != nil {
		return err
	}
	for _, n := range a.namespaces.Notes {
		_, _ = fmt.Fprintln(a.std.Err, n)
	}
	ctx := context.WithoutCancel(cmd.Context())
	env := a.insideEnv(cmd)
	for i, m := range mounts {
		at, err := a.forUnshare(ctx, func(e *builder.Engine) (string, error) { return mountContainer(ctx, e, m.container) })
		if err != nil {
			return errors.Join(err, a.unmountNamed(ctx, mounts[:i]))
		}
		env = append(env, m.variable+"="+at)
	}
	err = a.inside(args, env, signals)
	if failed := a.unmountNamed(ctx, mounts); failed != nil {
		err = errors.Join(err, failed)
	}
	return err
}

// forUnshare opens the store for a moment only: the command may take long.
func (a *app) forUnshare(ctx context.Context, do func(*builder.Engine) (string, error)) (string, error) {
	e, err := a.openEngine(ctx, builder.Options{Store: a.global.store()})
	if err != nil {
		return "", err
	}
	s, err := do(e)
	return s, errors.Join(err, a.closeEngine())
}

func (a *app) unmountNamed(ctx context.Context, mounts []namedMount) error {
	var failed []error
	for _, m := range mounts {
		_, err := a.forUnshare(ctx, func(e *builder.Engine) (string, error) { return unmountContainer(ctx, e, m.container) })
		if !errors.Is(err, define.ErrNotFound) { // the command may have removed it
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// insideEnv is the environment of the command: strata commands in it work on
// the store that this one was told of.
func (a *app) insideEnv(cmd *cobra.Command) []string {
	env := os.Environ()
	for _, name := range []string{"root", "runroot", "storage-driver", "storage-opt"} {
		f := cmd.Root().PersistentFlags().Lookup(name)
		if !f.Changed || a.fromEnv[name] != "" {
			continue
		}
		value := f.Value.String()
		if name == "storage-opt" {
			value = strings.Join(a.global.driverOptions, ",")
		}
		env = append(env, EnvNames(cmd, f)[0]+"="+value)
	}
	return env
}

// inside runs the command and passes signals on to it.
func (a *app) inside(args, env []string, signals <-chan os.Signal) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return notExecuted(args[0], err)
	}
	c := &exec.Cmd{Path: path, Args: args, Env: env, Stdin: a.std.In, Stdout: a.std.Out, Stderr: a.std.Err}
	if err := c.Start(); err != nil {
		return notExecuted(args[0], err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				// The keys of a terminal reach the command by themselves.
				if s != syscall.SIGINT && s != syscall.SIGQUIT || !a.inForeground() {
					_ = c.Process.Signal(s)
				}
			case <-done:
				return
			}
		}
	}()
	err = c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return &errStatus{exitSignal + int(w.Signal())}
	}
	return &errStatus{exit.ExitCode()}
}

// inForeground reports whether standard input is a terminal whose keys send
// signals to this process and those it started.
func (a *app) inForeground() bool {
	if !isTerminal(a.std.In) {
		return false
	}
	group, err := unix.IoctlGetInt(int(a.std.In.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// notExecuted gives the statuses that shells have for it.
func notExecuted(name string, err error) error {
	code := 126
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		code = 127
	}
	var cause *exec.Error
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return &isolation.ExitError{Code: code, Reason: name + ": " + err.Error()}
}
