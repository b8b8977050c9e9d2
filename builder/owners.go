package builder

import (
	"context"
	"errors"
	"fmt"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/owners"
	"github.com/stratabuild/strata/define"
)

// RemembersOwners returns nil where RUN steps of a namespace of one id can
// give files to others, by the named isolation; else why not.
func RemembersOwners(driver string) error {
	if driver != "embedded" {
		return fmt.Errorf("%s isolation leaves chown to the kernel", driver)
	}
	return owners.Supported()
}

// tell takes the step's user out of o where one id is mapped and its
// processes can be told that they are another; nil where not.
func (c *Container) tell(driver string, o *isolation.Options) *isolation.Identity {
	if !c.engine.opts.SingleID || RemembersOwners(driver) != nil {
		return nil
	}
	return o.Tell()
}

// runRemembering runs a step. Where one id is mapped, the owners that it
// gives to files are remembered; where they cannot be, a step that fails is
// told so, since nobody sees its chown fail.
func (c *Container) runRemembering(ctx context.Context, driver isolation.Driver, step *isolation.Step, r Run) error {
	if !c.engine.opts.SingleID {
		return driver.Run(ctx, step)
	}
	lost := RemembersOwners(driver.Name())
	if lost == nil {
		o := &isolation.Owners{Upper: c.working.Upper(), Below: c.working.LinkOwner, Remembers: true, Refused: func(err error) { lost = err }}
		for _, v := range r.Mounts {
			if v.Tree != nil && (v.Own || v.Noted) {
				o.Trees = append(o.Trees, v.Tree)
			}
		}
		step.Owners = o
	}
	err := driver.Run(ctx, step)
	// A program that was not executed has changed no owner.
	if exit, failed := errors.AsType[*isolation.ExitError](err); failed && !exit.NotExecuted && lost != nil {
		c.engine.ownersLost(lost)
	}
	return err
}

// ownersLost warns, once for an engine, that chown in steps fails.
func (e *Engine) ownersLost(err error) {
	e.ownersOnce.Do(func() {
		define.Emit(e.opts.Listener, define.Event{Kind: define.EventWarning, Text: fmt.Sprintf(
			"chown to other ids fails in RUN steps: one id is mapped, and owners cannot be remembered: %v; "+
				"add ranges to /etc/subuid and /etc/subgid and install newuidmap", err)})
	})
}
