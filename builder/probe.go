package builder

import (
	"context"

	"github.com/stratabuild/strata/define"
)

// ChosenIsolation names the isolation that steps get on this host when nobody
// asks for another, without a store being opened. The note says what was
// missing where it is a lesser one. The directory tmp is for what drivers
// try, and left empty.
func ChosenIsolation(ctx context.Context, tmp string) (name, note string, err error) {
	e := &Engine{temp: tmp}
	e.opts.Listener = define.ListenerFunc(func(ev define.Event) {
		if ev.Kind == define.EventNote {
			note = ev.Text
		}
	})
	d, err := e.Driver(ctx)
	if err != nil {
		return "", "", err
	}
	return d.Name(), note, d.Close()
}
