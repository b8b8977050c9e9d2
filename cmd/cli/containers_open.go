package cli

import (
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
)

// openContainer opens a working container for a command that changes it,
// until the command ends.
func (a *app) openContainer(cmd *cobra.Command, e *builder.Engine, name string) (*builder.Container, error) {
	c, err := e.OpenContainer(cmd.Context(), name)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, c.Close)
	return c, nil
}
