package cli

import (
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
)

// globalFlags are the flags of every command.
type globalFlags struct {
	root, runRoot string
	driver        string
	driverOptions []string
	logLevel      string
	debug         bool
	imageStore    string
	transient     bool
	registries    registriesFlags
}

var logLevels = []string{"trace", "debug", "info", "warn", "error", "fatal", "panic"}

func (g *globalFlags) add(root *cobra.Command) {
	fs := root.PersistentFlags()
	fs.StringVar(&g.root, "root", "", "keep images and layers below this `directory` (default: as storage.conf says)")
	fs.StringVar(&g.runRoot, "runroot", "", "keep the store's volatile state below this `directory`")
	fs.StringVar(&g.driver, "storage-driver", "", "use this storage `driver`, such as overlay or vfs; the options of storage.conf are then not used")
	fs.StringSliceVar(&g.driverOptions, "storage-opt", nil, "give the storage driver an `option`, such as overlay.ignore_chown_errors=true")
	fs.StringVar(&g.logLevel, "log-level", "warn", "log at this `level`: "+strings.Join(logLevels, ", "))
	fs.StringVar(&g.imageStore, "imagestore", "", "keep images below this `directory`, apart from the containers")
	fs.BoolVar(&g.transient, "transient-store", false, "keep what is known of containers in the volatile state, which the next start of the machine empties")
	g.registries.add(fs)
	_ = root.MarkPersistentFlagDirname("imagestore")
	fs.BoolVar(&g.debug, "debug", false, "the same as --log-level debug")
	_ = fs.MarkHidden("debug")
	_ = root.RegisterFlagCompletionFunc("log-level", fixedValues(logLevels...))
	_ = root.RegisterFlagCompletionFunc("storage-driver", fixedValues("overlay", "vfs"))
}

func (g *globalFlags) store() store.Options {
	return store.Options{Root: g.root, RunRoot: g.runRoot, Driver: g.driver, DriverOptions: g.driverOptions,
		ImageStore: g.imageStore, Transient: g.transient}
}

// applyGlobal checks the flags of every command and sends the log lines of
// the libraries through the display, so that they do not break its drawing.
func (a *app) applyGlobal() error {
	g := &a.global
	level, err := logrus.ParseLevel(g.logLevel)
	if err != nil {
		return fmt.Errorf("--log-level %q: want one of %s: %w", g.logLevel, strings.Join(logLevels, ", "), define.ErrInvalid)
	}
	if g.debug {
		level = max(level, logrus.DebugLevel)
	}
	if err := g.registries.check(); err != nil {
		return err
	}
	for _, o := range g.driverOptions {
		if k, _, ok := strings.Cut(o, "="); !ok || k == "" {
			return fmt.Errorf("--storage-opt %q: want key=value: %w", o, define.ErrInvalid)
		}
	}
	logrus.SetLevel(level)
	logrus.SetOutput(logWriter{a})
	logrus.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: level < logrus.DebugLevel})
	return nil
}

// logWriter receives one log line a call.
type logWriter struct{ a *app }

func (w logWriter) Write(p []byte) (int, error) {
	line := strings.TrimRight(string(p), "\n")
	if w.a.display != nil {
		w.a.display.Log(line)
		return len(p), nil
	}
	if w.a.namespaces == nil && userns.Waiting() {
		return len(p), nil // the front logs the same
	}
	if _, err := fmt.Fprintln(w.a.std.Err, ui.Clean(line)); err != nil {
		return 0, err
	}
	return len(p), nil
}
