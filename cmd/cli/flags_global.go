package cli

import (
	"fmt"
	"slices"
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
	cgroupManager string
	registries    registriesFlags
	mountsFile    string

	cpuProfile, memoryProfile string
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
	fs.StringVar(&g.cgroupManager, "cgroup-manager", "", "who makes the control groups of RUN steps with limits: cgroupfs (strata itself) or systemd (a scope is asked of it); give the `manager` (default: cgroupfs, and systemd where that is not allowed)")
	g.registries.add(fs)
	fs.StringVar(&g.mountsFile, "default-mounts-file", "", "show the host's directories that the lines SOURCE:TARGET of this `file` name to steps, which can change their own copy only (default: mounts.conf of the user, else the machine's)")
	fs.StringVar(&g.cpuProfile, "cpu-profile", "", "write a profile of the processor time that strata itself uses to this `file`, for go tool pprof")
	fs.StringVar(&g.memoryProfile, "memory-profile", "", "write a profile of the memory that strata itself uses at the end to this `file`, for go tool pprof")
	_ = root.MarkPersistentFlagDirname("imagestore")
	fs.BoolVar(&g.debug, "debug", false, "the same as --log-level debug")
	_ = fs.MarkHidden("debug")
	_ = root.RegisterFlagCompletionFunc("log-level", fixedValues(logLevels...))
	_ = root.RegisterFlagCompletionFunc("cgroup-manager", fixedValues("cgroupfs", "systemd"))
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
	if !slices.Contains([]string{"", "cgroupfs", "systemd"}, g.cgroupManager) {
		return fmt.Errorf("--cgroup-manager %q: want cgroupfs or systemd: %w", g.cgroupManager, define.ErrInvalid)
	}
	if err := g.registries.check(a.getenv); err != nil {
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
