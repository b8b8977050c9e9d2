package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// EnvPrefix begins the name of every flag's twin in the environment.
const EnvPrefix = "STRATA_"

// fallbackEnv are the variables that are read when a flag and its twin are
// not set, by "command flag". Libraries read further ones themselves
// (REGISTRY_AUTH_FILE, DOCKER_CONFIG, STORAGE_DRIVER, CONTAINERS_*, TMPDIR).
var fallbackEnv = map[string]string{
	"from format":              "BUILDAH_FORMAT",
	"from isolation":           "BUILDAH_ISOLATION",
	"from platform":            "DOCKER_DEFAULT_PLATFORM",
	"run add-history":          "BUILDAH_HISTORY",
	"run cached":               EnvPrefix + "CACHED",
	"run explain":              EnvPrefix + "EXPLAIN",
	"run isolation":            "BUILDAH_ISOLATION",
	"run no-cache":             EnvPrefix + "NO_CACHE",
	"add add-history":          "BUILDAH_HISTORY",
	"add cached":               EnvPrefix + "CACHED",
	"add no-cache":             EnvPrefix + "NO_CACHE",
	"add explain":              EnvPrefix + "EXPLAIN",
	"copy add-history":         "BUILDAH_HISTORY",
	"copy cached":              EnvPrefix + "CACHED",
	"copy no-cache":            EnvPrefix + "NO_CACHE",
	"copy explain":             EnvPrefix + "EXPLAIN",
	"build format":             "BUILDAH_FORMAT",
	"commit format":            "BUILDAH_FORMAT",
	"config add-history":       "BUILDAH_HISTORY",
	"commit source-date-epoch": "SOURCE_DATE_EPOCH",
	"build cpp-flag":           cppFlagsEnv,
	"build layers":             "BUILDAH_LAYERS",
	"build isolation":          "BUILDAH_ISOLATION",
	"build progress":           "BUILDKIT_PROGRESS",
	"build source-date-epoch":  "SOURCE_DATE_EPOCH",
	"build platform":           "DOCKER_DEFAULT_PLATFORM",
	"pull platform":            "DOCKER_DEFAULT_PLATFORM",
}

// cppFlagsEnv holds flags between spaces.
const cppFlagsEnv = "BUILDAH_CPPFLAGS"

// EnvNames returns the variables that stand for a flag, in the order in which
// they are looked at: STRATA_NO_COLOR for a global flag, STRATA_BUILD_TAG for
// a command's, then the name that other builders gave it.
func EnvNames(cmd *cobra.Command, f *pflag.Flag) []string {
	name := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
	if cmd.Root().PersistentFlags().Lookup(f.Name) == f {
		return []string{EnvPrefix + name}
	}
	command := commandWord(cmd)
	names := []string{EnvPrefix + strings.ToUpper(strings.ReplaceAll(command, " ", "_")) + name}
	if n, ok := fallbackEnv[command+f.Name]; ok {
		names = append(names, n)
	}
	return names
}

// HasTwin reports whether variables stand for the flag. It excludes the flags that ask for text about the program.
func HasTwin(f *pflag.Flag) bool {
	return f.Name != "help" && f.Name != "version" && !f.Hidden
}

// applyEnv gives flags that were not set the values of their twins. Empty
// values count as absent. The values of a flag that may be repeated stand on
// lines of their own, or between commas where the flag splits at commas.
func (a *app) applyEnv(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || !HasTwin(f) {
			return
		}
		for _, name := range EnvNames(cmd, f) {
			value := a.getenv(name)
			if value == "" {
				continue
			}
			if a.overridden(cmd, name) {
				return
			}
			if name == cppFlagsEnv {
				value = strings.Join(strings.Fields(value), "\n")
			}
			if e := setFlag(cmd.Flags(), f, value); e != nil {
				err = fmt.Errorf("%s=%q: %w", name, value, reason(e))
			}
			a.fromEnv[f.Name] = name
			return
		}
	})
	return err
}

// overridden reports variables of other tools that a different flag on the
// command line outdoes: they are habits of an environment, not a wish.
func (a *app) overridden(cmd *cobra.Command, name string) bool {
	others := map[string][]string{
		"DOCKER_DEFAULT_PLATFORM": {"os", "arch", "variant"},
		"SOURCE_DATE_EPOCH":       {"timestamp"},
		"BUILDKIT_PROGRESS":       {"quiet"},
	}
	for _, f := range others[name] {
		if cmd.Flags().Changed(f) {
			return true
		}
	}
	return false
}

func setFlag(fs *pflag.FlagSet, f *pflag.Flag, value string) error {
	if f.Value.Type() != "stringArray" {
		return fs.Set(f.Name, value)
	}
	for line := range strings.SplitSeq(value, "\n") {
		if line == "" {
			continue
		}
		if err := fs.Set(f.Name, line); err != nil {
			return err
		}
	}
	return nil
}
