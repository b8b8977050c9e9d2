package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/imagebuildah"
)

// languageFlags are about what a Containerfile may say.
type languageFlags struct {
	allow []string
}

func (l *languageFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&l.allow, "allow", nil, "let the Containerfile ask for this `entitlement`: network.host or security.insecure")
	_ = cmd.RegisterFlagCompletionFunc("allow", fixedValues(imagebuildah.AllowHostNetwork, imagebuildah.AllowInsecure))
}

// options checks the values and puts them into o.
func (l *languageFlags) options(o *imagebuildah.Options) error {
	o.Allow = l.allow
	for _, name := range l.allow {
		if err := imagebuildah.CheckEntitlement(name); err != nil {
			return fmt.Errorf("--allow: %w", err)
		}
	}
	return nil
}
