package builder

import (
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

// rememberOwners has the owners that a step gives to files remembered, where
// one id is mapped.
func (c *Container) rememberOwners(driver string, r Run) *isolation.Owners {
	if !c.engine.opts.SingleID {
		return nil
	}
	if err := RemembersOwners(driver); err != nil {
		c.engine.ownersLost(err)
		return nil
	}
	o := &isolation.Owners{Upper: c.working.Upper(), Below: c.working.LinkOwner, Remembers: true, Refused: c.engine.ownersLost}
	for _, v := range r.Mounts {
		if v.Tree != nil && v.Own {
			o.Trees = append(o.Trees, v.Tree)
		}
	}
	return o
}

// ownersLost warns, once for an engine, that chown in steps fails.
func (e *Engine) ownersLost(err error) {
	e.ownersOnce.Do(func() {
		define.Emit(e.opts.Listener, define.Event{Kind: define.EventWarning, Text: fmt.Sprintf(
			"chown to other ids fails in RUN steps: one id is mapped, and owners cannot be remembered: %v; "+
				"add ranges to /etc/subuid and /etc/subgid and install newuidmap", err)})
	})
}
