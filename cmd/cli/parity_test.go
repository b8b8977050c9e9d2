package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// otherDefaults are on purpose: where buildah's is what a host is found to be,
// ours is unset.
var otherDefaults = map[string]string{
	"from --arch": "", "from --os": "", "from --platform": "[]", // this machine's
	"from --format":    "",    // what commit says
	"from --isolation": "",    // the strongest that works
	"commit --format":  "oci", // or what from said
	"run --workingdir": "", "run --runtime": "",
	"add --retry-delay": "", "copy --retry-delay": "", // longer each time, from a second
	"inspect --type":     "",     // a container, else an image
	"mount --notruncate": "true", // nothing is shortened
	"build --arch":       "", "build --os": "", "build --platform": "[]",
	"pull --arch": "", "pull --os": "", "pull --platform": "[]",
	"build --isolation": "", "build --runtime": "",
	"build --jobs":   "0",    // suits the machine
	"build --layers": "true", // as docker's: the next build is served by them
	"push --all":     "true", // a list is pushed with what it lists
	// With --source-date-epoch times are what it says, unless this is false.
	"build --rewrite-timestamp": "true",
	// Without effect.
	"build --disable-content-trust": "true", "build --force-rm": "true",
	// Images say nothing that nobody asked for, and are the same each time.
	"commit --created-annotation": "false", "commit --identity-label": "false",
	"build --created-annotation": "false", "build --identity-label": "false",
}

// otherTypes take what buildah's take and more: triggers have commas of their
// own, filters may be repeated, and levels have
// names besides numbers.
var otherTypes = map[string]string{
	"config --onbuild": "stringArray", "containers --filter": "stringSlice", "build --loglevel": "string",
}

// TestBuildahFlags compares build, the commands that work on containers, push and pull with what
// scripts for buildah give them: each flag is there, with the same short form,
// a type that takes the same values and the same default, or it is refused.
func TestBuildahFlags(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("testdata/buildah.tsv")
	if err != nil {
		t.Fatal(err)
	}
	root := NewCommand()
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			t.Fatalf("a row has %d columns: %q", len(f), line)
		}
		for i := range f {
			if f[i] == "-" {
				f[i] = ""
			}
		}
		command, name, short, typ, value := f[0], f[1], f[2], f[3], f[4]
		c, _, err := root.Find([]string{command})
		if err != nil || c == root {
			t.Errorf("%s: there is no such command", command)
			continue
		}
		if name == "" {
			for alias := range strings.FieldsSeq(typ) {
				if !slices.Contains(c.Aliases, alias) {
					t.Errorf("%s: has no alias %s", command, alias)
				}
			}
			continue
		}
		compareFlag(t, c, name, short, typ, value)
	}
}

func compareFlag(t *testing.T, c *cobra.Command, name, short, typ, value string) {
	t.Helper()
	title := c.Name() + " --" + name
	flag := c.Flags().Lookup(name)
	if flag == nil {
		m, ok := missingFlag(c.Name(), name)
		if !ok {
			t.Errorf("%s: is neither there nor refused by name", title)
		}
		if short != "" && m.Short != short && c.Flags().ShorthandLookup(short) != nil {
			t.Errorf("%s: its short form -%s means another flag", title, short)
		}
		return
	}
	if short != "" && flag.Shorthand != short {
		t.Errorf("%s: its short form is %q, want %q", title, flag.Shorthand, short)
	}
	if want, ok := otherTypes[title]; ok {
		if flag.Value.Type() != want {
			t.Errorf("%s: is of type %s, want %s", title, flag.Value.Type(), want)
		}
	} else if !compatibleType(flag, typ) {
		t.Errorf("%s: is of type %s (alone: %q), want %s", title, flag.Value.Type(), flag.NoOptDefVal, typ)
	}
	if want, ok := otherDefaults[title]; ok {
		if flag.DefValue != want {
			t.Errorf("%s: the default is %q, want %q", title, flag.DefValue, want)
		}
		return
	}
	if got := strings.Trim(flag.DefValue, "[]"); got != value && (value != "" || !zeroDefault(got)) {
		t.Errorf("%s: the default is %q, want %q", title, got, value)
	}
}

func zeroDefault(s string) bool { return s == "" || s == "0" || s == "false" }

// compatibleType reports whether a flag takes the values of another type: one
// that splits at commas is not one that does not.
func compatibleType(f *pflag.Flag, want string) bool {
	got := f.Value.Type()
	if alone, ok := strings.CutPrefix(want, "optional="); ok {
		return f.NoOptDefVal == alone
	}
	if want != "bool" && f.NoOptDefVal != "" {
		return false
	}
	switch want {
	case "bool", "slice", "array":
		return got == map[string]string{"bool": "bool", "slice": "stringSlice", "array": "stringArray"}[want] || want == "slice" && strings.HasSuffix(got, "Slice")
	case "int", "uint":
		return strings.HasPrefix(got, want) && !strings.HasSuffix(got, "Slice")
	}
	return got != "bool" && !strings.HasSuffix(got, "Slice") && !strings.HasSuffix(got, "Array")
}
