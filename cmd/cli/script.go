package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
)

// The variables that commands of a script read.
const (
	// scriptVariable is the script's absolute path, or its name: steps from
	// the cache are told apart by it.
	scriptVariable = EnvPrefix + "SCRIPT"
	// transactionVariable is the ID of the transaction that containers belong
	// to.
	transactionVariable = EnvPrefix + "TRANSACTION"
)

type scriptFlags struct {
	command                      string
	alias, cached, noCache, keep bool
	explain                      bool
}

func newScriptCommand(a *app) *cobra.Command {
	f := &scriptFlags{}
	cmd := &cobra.Command{
		Use:   "script [flags] file [argument...]",
		Short: "Run a shell script as one transaction",
		Long: `Run a shell script whose strata commands belong together: the working containers
that it makes are removed when it fails or is interrupted, and their names are
free again. Those that it leaves when it ends well stay, and so do images that
it has committed by then, in any case.

The script runs in the namespaces that strata works in, so that for users other
than root mount works as it does for root; what it mounts ends with it. It is
run by /bin/sh, or by what its first line (#!) says; - stands for a script on
standard input. Flags stand before the file's name: what follows it are the
script's arguments. Its exit status is that of strata.

With --cached every run, copy and add of the script is looked up in the build
cache, and executed only when it is not there, as build does.`,
		Example: `  strata script build.sh
  strata script --cached --explain build.sh 1.2
  strata script --alias buildah-script.sh
  strata script -c 'c=$(strata from alpine) && strata run $c apk add curl && strata commit --rm $c curl'`,
		Args: func(_ *cobra.Command, args []string) error {
			if f.command == "" && (len(args) == 0 || args[0] == "") {
				return fmt.Errorf("script needs a file, - or -c TEXT; see strata script --help: %w", define.ErrInvalid)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args) },
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVar(&f.alias, "alias", false, "let the script call strata as buildah, too")
	fs.BoolVar(&f.cached, "cached", false, "take steps from the build cache where they are there: --cached for each run, copy and add")
	fs.StringVarP(&f.command, "command", "c", "", "run this `text` in place of a file; all arguments are its own")
	fs.BoolVar(&f.explain, "explain", false, "with --cached, say of each step why it was executed or not")
	fs.BoolVar(&f.keep, "keep", false, "keep the containers when the script fails")
	fs.BoolVar(&f.noCache, "no-cache", false, "with --cached, execute each step, and record its result")
	return cmd
}

// scriptPlan is the program that runs a script.
type scriptPlan struct {
	title string // as the user wrote it
	name  string // for scriptVariable
	argv  []string
	env   []string
}

func (f *scriptFlags) plan(args []string) (*scriptPlan, error) {
	if (f.explain || f.noCache) && !f.cached {
		return nil, fmt.Errorf("--explain and --no-cache are of use with --cached only: %w", define.ErrInvalid)
	}
	p := &scriptPlan{}
	for name, on := range map[string]bool{"CACHED": f.cached, "NO_CACHE": f.noCache, "EXPLAIN": f.explain} {
		if on {
			p.env = append(p.env, EnvPrefix+name+"=true")
		}
	}
	switch {
	case f.command != "":
		p.title, p.name = "the script", "-c"
		p.argv = append([]string{"/bin/sh", "-c", f.command, "sh"}, args...)
	case args[0] == "-":
		p.title, p.name = "the script", "-"
		p.argv = append([]string{"/bin/sh", "-s", "--"}, args[1:]...)
	default:
		file := args[0]
		p.title = file
		var err error
		if p.name, err = filepath.Abs(file); err != nil {
			return nil, err
		}
		interpreter, err := interpreterOf(file)
		if err != nil {
			return nil, err
		}
		if !strings.Contains(file, "/") {
			file = "./" + file // a shell would look for it in PATH
		}
		p.argv = append(append(interpreter, file), args[1:]...)
	}
	return p, nil
}

// interpreterOf reads a file's first line: "#!PROGRAM [ARGUMENT]"
// (execve(2)); without it, scripts are the shell's.
func interpreterOf(file string) ([]string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("script %s: is a directory: %w", file, define.ErrInvalid)
	}
	if !info.Mode().IsRegular() {
		return []string{"/bin/sh"}, nil // looking would take from a pipe
	}
	fd, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	defer fd.Close()
	line, err := bufio.NewReader(io.LimitReader(fd, 256)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("script %s: %w", file, err)
	}
	rest, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return []string{"/bin/sh"}, nil
	}
	program, argument, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if program == "" {
		return nil, fmt.Errorf("script %s: its first line names no program behind #!: %w", file, define.ErrInvalid)
	}
	if argument = strings.TrimSpace(argument); argument != "" {
		return []string{program, argument}, nil
	}
	return []string{program}, nil
}
