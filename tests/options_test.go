package tests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/cmd/cli"
	"github.com/stratabuild/strata/docs"
	"github.com/stratabuild/strata/tests/testenv"
)

// TestOptions checks the rows of docs/compatibility.tsv about the options of
// build: none is left out, and each does what its status says.
func TestOptions(t *testing.T) {
	t.Parallel()
	all, err := docs.Rows()
	if err != nil {
		t.Fatal(err)
	}
	_, rows := docs.Split(all)
	build, _, err := cli.NewCommand().Find([]string{"build"})
	if err != nil {
		t.Fatal(err)
	}
	optionsComplete(t, rows, build)
	o := optionTrial{binary: testenv.Strata(t), dir: t.TempDir(), command: commandWriting(build)}
	if err := os.WriteFile(filepath.Join(o.dir, "Containerfile"), []byte("FROM scratch\nCOPY Containerfile /\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { testenv.RemoveStore(filepath.Join(o.dir, "store")) })
	for _, r := range rows {
		t.Run(r.Name, func(t *testing.T) {
			flag := build.Flag(r.Flag())
			if flag == nil && r.Status != docs.Refused {
				t.Fatalf("docs/compatibility.tsv says %s, and build has no flag --%s: make the row \"refused\"", r.Status, r.Flag())
			}
			if flag != nil && r.Part() == "" && r.Status == docs.Refused {
				t.Fatalf("docs/compatibility.tsv says refused, and build has the flag: say \"works\" and name a test, or \"accepted\" with a note")
			}
			switch r.Status {
			case docs.Works:
				o.works(t, r, flag)
			case docs.Accepted:
				o.accepted(t, r, flag)
			case docs.Refused:
				o.refused(t, r, flag)
			default:
				t.Errorf("an option is works, accepted or refused, not %q", r.Status)
			}
		})
	}
}

// optionsComplete compares the rows with the options that people know, and
// with the flags that build has.
func optionsComplete(t *testing.T, rows []docs.Row, build *cobra.Command) {
	t.Helper()
	has := map[string]bool{}
	for _, r := range rows {
		has[r.Name] = true
	}
	known, err := os.ReadFile("testdata/build_options.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(known)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		tool, option, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !has[option] {
			t.Errorf("%s has the option %s: add its row to [%s] in docs/compatibility.tsv", tool, option, docs.OptionsGroup)
		}
	}
	build.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !has["--"+f.Name] {
			t.Errorf("build has the flag --%s: add its row to [%s] in docs/compatibility.tsv", f.Name, docs.OptionsGroup)
		}
	})
	for _, m := range cli.Missing() {
		if m.Command == "build" && !has["--"+m.Name] {
			t.Errorf("build refuses --%s by name: add its row to [%s] in docs/compatibility.tsv", m.Name, docs.OptionsGroup)
		}
	}
	for _, f := range cli.NoEffect() {
		i := slices.IndexFunc(rows, func(r docs.Row) bool { return r.Name == "--"+f[0] })
		if i >= 0 && rows[i].Status != docs.Accepted {
			t.Errorf("--%s has no effect: its row in docs/compatibility.tsv is %q, want accepted", f[0], rows[i].Status)
		}
	}
}

// optionTrial tries options on a context in dir.
type optionTrial struct {
	binary, dir string
	command     *regexp.Regexp
}

// works wants a test that gives build the option.
func (o *optionTrial) works(t *testing.T, r docs.Row, flag *pflag.Flag) {
	writing, what := flagWriting(flag, r.Flag()), r.Written
	if what == "" {
		what = r.Part()
	}
	if len(r.Tests) == 0 {
		t.Fatalf("works, and the row names no test: a script that shows the effect of --%s %s", r.Flag(), what)
	}
	for _, test := range r.Tests {
		lines, err := linesOf(test)
		if err != nil {
			t.Error(err)
			continue
		}
		uses := slices.ContainsFunc(lines, func(line string) bool {
			if strings.HasPrefix(test, "go:") {
				return strings.Contains(line, r.Flag()) && strings.Contains(line, what)
			}
			return strings.Contains(line, what) && writes(line, o.command, writing)
		})
		if !uses {
			t.Errorf("%s does not use it: no line runs build with --%s %s", test, r.Flag(), what)
		}
	}
}

// accepted wants a note, and a build that takes it.
func (o *optionTrial) accepted(t *testing.T, r docs.Row, flag *pflag.Flag) {
	if r.Note == "" {
		t.Error("accepted wants a note that says the effect")
	}
	value := r.Written
	if value == "" && flag.NoOptDefVal == "" {
		t.Fatalf("--%s takes a value: say one that is accepted in the fifth column", flag.Name)
	}
	if status, text := o.build(t, r.Flag(), value); status != 0 {
		t.Errorf("accepted, but strata build --%s ends with %d: %s", flag.Name, status, text)
	}
}

// refused wants exit status 125 and one line that names the option.
func (o *optionTrial) refused(t *testing.T, r docs.Row, flag *pflag.Flag) {
	value, names := r.Written, "--"+r.Flag()
	if r.Part() != "" {
		if value == "" {
			value = r.Part()
		}
		if flag != nil { // the flag is there, the value is refused
			names = value[strings.LastIndexAny(value[:len(value)-1], ",:=")+1:]
		}
	} else if value == "" {
		value = "x"
	}
	status, text := o.build(t, r.Flag(), value)
	if status != 125 || !strings.Contains(text, names) || strings.Count(strings.TrimSpace(text), "\n") > 0 {
		t.Errorf("refused, but strata build --%s=%s ends with %d and says %q; want 125 and one line that names %s", r.Flag(), value, status, text, names)
	}
}

// build runs build with a flag, alone when value is "".
func (o *optionTrial) build(t *testing.T, flag, value string) (status int, text string) {
	t.Helper()
	arg := "--" + flag
	if value != "" {
		arg += "=" + value
	}
	store := filepath.Join(o.dir, "store")
	cmd := exec.Command(o.binary, "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run"), "--storage-driver", "vfs",
		"build", "-q", arg, o.dir)
	var out bytes.Buffer
	cmd.Stderr = &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), out.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, out.String()
}
