package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// registriesFlags say which files tell of registries, instead of the user's.
type registriesFlags struct {
	conf, confDir, aliases string
	sources                *transport.RegistrySources // of a variable
}

func (r *registriesFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&r.conf, "registries-conf", "", "read this `file` instead of registries.conf (default: $CONTAINERS_REGISTRIES_CONF, else the user's, else the machine's)")
	fs.StringVar(&r.confDir, "registries-conf-dir", "", "read the files of this `directory` instead of those of registries.conf.d")
	fs.StringVar(&r.aliases, "short-name-alias-conf", "", "read the aliases of short names that other tools have learnt from this `file`")
	for _, name := range []string{"registries-conf-dir", "short-name-alias-conf"} {
		_ = fs.MarkHidden(name)
	}
}

// sourcesVariable restricts which registries are asked, as it does for buildah.
const sourcesVariable = "BUILD_REGISTRY_SOURCES"

func (r *registriesFlags) check(getenv func(string) string) (err error) {
	if text := getenv(sourcesVariable); strings.TrimSpace(text) != "" {
		if r.sources, err = transport.ParseRegistrySources(text); err != nil {
			return fmt.Errorf("%s: %w", sourcesVariable, err)
		}
	}
	if r.conf != "" {
		if _, err := os.Stat(r.conf); err != nil {
			return fmt.Errorf("--registries-conf: %w", err)
		}
	}
	if r.confDir != "" {
		if fi, err := os.Stat(r.confDir); err != nil {
			return fmt.Errorf("--registries-conf-dir: %w", err)
		} else if !fi.IsDir() {
			return fmt.Errorf("--registries-conf-dir %q: not a directory: %w", r.confDir, define.ErrInvalid)
		}
	}
	return nil
}

func (r *registriesFlags) apply(o *transport.Options) {
	o.RegistriesConf, o.RegistriesConfDir, o.ShortNameAliases = r.conf, r.confDir, r.aliases
	o.Sources = r.sources
}
