package cli

import (
	"fmt"
	"os"
	"strconv"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
)

// logFlags say what a build writes about itself, and where.
type logFlags struct {
	level      string
	split      bool
	rusage     bool
	rusageFile string
}

func (l *logFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&l.level, "loglevel", "", "the same as --log-level; 0 (panic) to 6 (trace) are known too")
	fs.BoolVar(&l.split, "logsplit", false, "with --logfile and several platforms, write what happens for each to a file of its own: LOGFILE_os_arch")
	fs.BoolVar(&l.rusage, "log-rusage", false, "say after each step which resources the build used during it")
	fs.StringVar(&l.rusageFile, "rusage-logfile", "", "with --log-rusage, write that to this `file`")
	_ = fs.MarkHidden("loglevel")
	_ = cmd.MarkFlagFilename("rusage-logfile")
}

// logPlan is what logFlags come to.
type logPlan struct {
	logSplit   bool
	split      *splitLog // open
	rusage     bool
	rusageFile string
}

func (l *logFlags) options(a *app, cmd *cobra.Command, p *buildPlan) error {
	if l.level != "" {
		level, err := logLevel(l.level)
		if err != nil {
			return fmt.Errorf("--loglevel %q: %w", l.level, err)
		}
		if cmd.Flags().Changed("log-level") && a.global.logLevel != level.String() {
			return fmt.Errorf("--loglevel and --log-level: want one or the other: %w", define.ErrInvalid)
		}
		logrus.SetLevel(level)
	}
	if l.split && p.logFile == "" {
		return fmt.Errorf("--logsplit is of use with --logfile only: %w", define.ErrInvalid)
	}
	if l.rusageFile != "" && !l.rusage {
		return fmt.Errorf("--rusage-logfile is of use with --log-rusage only: %w", define.ErrInvalid)
	}
	p.logSplit, p.rusage, p.rusageFile = l.split, l.rusage, l.rusageFile
	return nil
}

func logLevel(text string) (logrus.Level, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= int(logrus.PanicLevel) && n <= int(logrus.TraceLevel) {
		return logrus.Level(n), nil
	}
	level, err := logrus.ParseLevel(text)
	if err != nil {
		return level, fmt.Errorf("want a number from 0 to 6 or a word of --log-level: %w", define.ErrInvalid)
	}
	return level, nil
}

// listener is told of the build's events.
func (p *buildPlan) listener(a *app) (define.Listener, error) {
	switch {
	case !p.rusage:
		return a.display, nil
	case p.rusageFile == "":
		return newRusageLog(a.display, a.display.Log), nil
	}
	f, err := os.OpenFile(p.rusageFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--rusage-logfile: %w", err)
	}
	a.closers = append(a.closers, f.Close)
	return newRusageLog(a.display, rusageTo(f)), nil
}
