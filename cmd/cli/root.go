package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/cmd/internal/ui"
)

// Streams are the standard three. Out carries results only.
type Streams struct {
	In       *os.File
	Out, Err *os.File
}

// Run executes one command line (without the program's name) and returns its
// exit status. What went wrong has been reported on std.Err.
func Run(ctx context.Context, args []string, std Streams) int {
	tuneCollector()
	return newApp(std).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a, commandsFor(args))
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		plainUsage(root)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.namespaces == nil && userns.Waiting() {
		// Started ahead, and nothing to work on: the front found the same and
		// reports it. Should it not, its word arrives and we do.
		err = errors.Join(err, a.enter(false))
	}
	// Before the error is reported: what could not be printed is one.
	if flushErr := a.flush(); err == nil {
		err = flushErr
	}
	err = errors.Join(err, a.closeEngine())
	if err == nil {
		// An interrupted command that ended well all the same did its work.
		a.closeDisplay()
		if err = a.closeLog(); err == nil {
			return exitOK
		}
		printError(ctx, a.std.Err, a.colour(), err)
		return exitCode(ctx, err)
	}
	if a.display == nil {
		printError(ctx, a.std.Err, a.colour(), err)
		return exitCode(ctx, err)
	}
	if f, show := failure(ctx, err); show {
		a.display.Fail(f)
	}
	a.closeDisplay()
	code := exitCode(ctx, err)
	if err := a.closeLog(); err != nil {
		printError(ctx, a.std.Err, a.colour(), err)
	}
	return code
}

// app is what the commands of one process share.
type app struct {
	std    Streams
	out    *bufio.Writer // standard output: results
	getenv func(string) string
	global globalFlags
	// fromEnv holds, for flags that a variable has set, the variable's name.
	fromEnv map[string]string

	// enterNamespaces is userns.Enter; namespaces is what it returned.
	enterNamespaces func(userns.Options) (*userns.Info, error)
	namespaces      *userns.Info
	// afterWorker is called when a worker has ended, however it did.
	afterWorker func()

	display ui.Display
	closers []func() error // what is to be released before errors are reported
	logFile *os.File       // --logfile
}

func newApp(std Streams) *app {
	return &app{
		// Larger than any help: a worker that waits (userns) must not print it.
		std: std, out: bufio.NewWriterSize(std.Out, 64<<10), getenv: os.Getenv, fromEnv: map[string]string{},
		enterNamespaces: userns.Enter,
	}
}

func (a *app) flush() error {
	if err := a.out.Flush(); err != nil {
		return &errResult{err}
	}
	return nil
}

// closeEngine releases what commands opened, the latest first.
func (a *app) closeEngine() error {
	var err error
	for i := len(a.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, a.closers[i]())
	}
	a.closers = nil
	return err
}

// closeDisplay draws the display's last frame.
func (a *app) closeDisplay() {
	if a.display != nil {
		a.display.Close()
	}
}

// closeLog closes --logfile.
func (a *app) closeLog() error {
	if a.logFile == nil {
		return nil
	}
	if err := a.logFile.Close(); err != nil {
		return fmt.Errorf("--logfile: %w", err)
	}
	return nil
}

// println writes a line of a result.
func (a *app) println(v ...any) { _, _ = fmt.Fprintln(a.out, v...) }

// NewCommand returns the tree of commands, for the generators of
// documentation.
func NewCommand() *cobra.Command {
	return newRoot(newApp(Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}), commands())
}

func newRoot(a *app, list []command) *cobra.Command {
	root := &cobra.Command{
		Use:   "strata",
		Short: "Build OCI images without a daemon",
		Long: `strata builds OCI images without a daemon.

It runs Containerfiles as root or as any user, keeps images in the same store
as podman, buildah and skopeo, and needs nothing else to be installed.`,
		Example: `  strata build -t hello .
  strata images
  strata push hello docker://registry.example/team/hello:1`,
		Version:           version().Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.applyEnv(cmd); err != nil {
				return err
			}
			return a.applyGlobal()
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(a.out)
	root.SetErr(a.std.Err)
	root.SetIn(io.Reader(a.std.In))
	root.SetVersionTemplate("strata version {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelpCommand())
	a.global.add(root)
	for _, c := range list {
		root.AddCommand(c.make(a))
	}
	return root
}

// plainUsage takes the marks of values' names off the descriptions that
// completion shows as they are.
func plainUsage(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
	for _, c := range cmd.Commands() {
		plainUsage(c)
	}
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Show the help of a command",
		Long:  "Show the help of strata or of one of its commands.",
		Example: `  strata help
  strata help build`,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), args[0])
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	}
}
