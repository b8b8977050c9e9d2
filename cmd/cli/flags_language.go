package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/cpp"
)

// languageFlags are about what a Containerfile may say.
type languageFlags struct {
	allow, contexts, cpp []string
}

func (l *languageFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&l.allow, "allow", nil, "let the Containerfile ask for this `entitlement`: network.host, security.insecure, device (all CDI devices) or device=NAME[,alias=OTHER]")
	fs.StringArrayVar(&l.contexts, "build-context", nil, "let FROM and from= of a name mean another context, as `name=value`: a directory, a git or http URL, docker-image://NAME or oci-layout://DIR[:TAG]")
	fs.StringArrayVar(&l.cpp, "cpp-flag", nil, "give the C preprocessor, which reads Containerfiles that end in .in, this `flag`: -DNAME[=VALUE], -UNAME, -IDIRECTORY, -iquoteDIRECTORY or -includeFILE, within the build context")
	_ = cmd.RegisterFlagCompletionFunc("allow", fixedValues(imagebuildah.AllowHostNetwork, imagebuildah.AllowInsecure, imagebuildah.AllowDevice))
}

// options checks the values and puts them into o.
func (l *languageFlags) options(o *imagebuildah.Options) error {
	o.Allow = l.allow
	for _, name := range l.allow {
		if err := imagebuildah.CheckEntitlement(name); err != nil {
			return fmt.Errorf("--allow: %w", err)
		}
	}
	if _, err := cpp.ParseFlags(l.cpp); err != nil {
		return err
	}
	o.Context.CPPFlags = l.cpp
	for _, text := range l.contexts {
		name, value, _ := strings.Cut(text, "=")
		if err := imagebuildah.CheckBuildContext(name, value); err != nil {
			return fmt.Errorf("--build-context %s: %w", text, err)
		}
		if _, twice := o.BuildContexts[name]; twice {
			return fmt.Errorf("--build-context %s: %s was given before: %w", text, name, define.ErrInvalid)
		}
		if o.BuildContexts == nil {
			o.BuildContexts = map[string]string{}
		}
		o.BuildContexts[name] = value
	}
	return nil
}
