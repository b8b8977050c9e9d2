package cli

import (
	"context"
	"os"
	"strings"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/cmd/internal/ui"
	"github.com/stratabuild/strata/define"
	"golang.org/x/term"
)

// enter gives the process the namespaces that it works in. For anybody but
// root that means a worker process, for which the command line is parsed
// again: what comes before must not have effects that last.
func (a *app) enter(runsSteps bool) error {
	if a.namespaces != nil {
		return nil
	}
	info, err := a.enterNamespaces(userns.Options{PIDNamespace: runsSteps, Ended: a.afterWorker})
	if err != nil {
		return err
	}
	a.namespaces = info
	return nil
}

// openEngine opens the store and what goes with it, until the command ends.
// Enter has been called.
func (a *app) openEngine(ctx context.Context, o builder.Options) (*builder.Engine, error) {
	if err := a.startProfiles(); err != nil {
		return nil, err
	}
	a.global.registries.apply(&o.Transport)
	o.Rootless, o.SingleID = a.namespaces.Rootless, a.namespaces.SingleID
	o.Store.SingleID, o.PID = o.SingleID, a.namespaces.Front
	o.CgroupManager = a.global.cgroupManager
	for _, n := range a.namespaces.Notes {
		define.Emit(o.Listener, define.Event{Kind: define.EventNote, Text: n})
	}
	e, err := builder.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, e.Close)
	if o.Listener == nil {
		return e, nil // nobody reads notes, and making one takes its time
	}
	if n := e.Store().Note(); n != "" {
		define.Emit(o.Listener, define.Event{Kind: define.EventNote, Text: n})
	}
	return e, nil
}

// openStore is openEngine for commands that only look into the store.
func (a *app) openStore(ctx context.Context) (*builder.Engine, error) {
	if err := a.enter(false); err != nil {
		return nil, err
	}
	return a.openEngine(ctx, builder.Options{Store: a.global.store()})
}

// startDisplay shows progress on standard error.
func (a *app) startDisplay(mode ui.Mode) {
	if mode == ui.ModeAuto {
		mode = ui.ModePlain
		if isTerminal(a.std.Err) && a.getenv("CI") == "" && a.getenv("TERM") != "dumb" {
			mode = ui.ModeTTY
		}
	}
	a.display = ui.New(mode, ui.Options{
		Out: a.std.Err, Colour: a.colour(), Unicode: a.unicode(),
		Size: func() (int, int) {
			columns, rows, err := term.GetSize(int(a.std.Err.Fd()))
			if err != nil {
				return 80, 24
			}
			return columns, rows
		},
	})
}

// colour follows no-color.org: any value of NO_COLOR that is not empty
// switches colours off.
func (a *app) colour() bool {
	return isTerminal(a.std.Err) && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// unicode reports whether the locale's encoding is UTF-8 (locale(7)).
func (a *app) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }
