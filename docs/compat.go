package docs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/cmd/cli"
)

// Statuses of rows, with what they promise.
const (
	Works    = "works"
	Accepted = "accepted" // with the effect that the note says
	Refused  = "refused"  // with an error that names it
	Missing  = "missing"  // neither: to be mended
)

// Row is a form of the language, or an option of build, and what becomes of
// it here.
type Row struct {
	Group  string
	Name   string
	Status string
	// Tests are "corpus/CASE", "scripts/DIR/NAME" (both below tests/) or
	// "go:PACKAGE.TestName".
	Tests []string
	Note  string
}

// tree is a directory from which the module's root is "..": tests and
// generators run in one that lies in it.
const tree = ".."

// Forms reads docs/compatibility.tsv and adds to each row the cases of the
// corpus that name it.
func Forms() ([]Row, error) {
	data, err := os.ReadFile(filepath.Join(tree, "docs/compatibility.tsv"))
	if err != nil {
		return nil, err
	}
	cases, err := casesByRow()
	if err != nil {
		return nil, err
	}
	var rows []Row
	group := ""
	for n, line := range strings.Split(string(data), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "//"):
			continue
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			group = strings.Trim(line, "[]")
			continue
		}
		cells := append(strings.Split(line, "\t"), "", "", "")
		r := Row{Group: group, Name: cells[0], Status: cells[1], Note: cells[3]}
		if !slices.Contains([]string{Works, Accepted, Refused, Missing}, r.Status) {
			return nil, fmt.Errorf("compatibility.tsv:%d: status %q", n+1, r.Status)
		}
		r.Tests = append(cases[r.Name], strings.Fields(cells[2])...)
		delete(cases, r.Name)
		rows = append(rows, r)
	}
	for name, list := range cases {
		return nil, fmt.Errorf("%s: the row %q is not in docs/compatibility.tsv", list[0], name)
	}
	return rows, nil
}

// casesByRow reads the keys "row" of the corpus.
func casesByRow() (map[string][]string, error) {
	files, err := filepath.Glob(filepath.Join(tree, "tests/corpus/*/case"))
	if err != nil {
		return nil, err
	}
	cases := map[string][]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.HasPrefix(line, "-- ") {
				break
			}
			if row, ok := strings.CutPrefix(line, "row:"); ok {
				row = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(row), "|"))
				cases[row] = append(cases[row], "corpus/"+filepath.Base(filepath.Dir(f)))
			}
		}
	}
	return cases, nil
}

// Settled drops from the page of compatibility what every new test changes,
// so that adding one does not make the page stale.
func Settled(page []byte) []byte {
	head, options, ok := bytes.Cut(page, []byte("\n## Options of build"))
	if !ok {
		return page
	}
	return append(head, testNames.ReplaceAll(options, nil)...)
}

var testNames = regexp.MustCompile("`(corpus|scripts)/[^`]*`(, )?")

// maxShown is how many tests of an option are named.
const maxShown = 3

// BuildOptions are the flags of build: what it has, what it takes without
// effect, and what it refuses. Tests are those that write the flag.
func BuildOptions() ([]Row, error) {
	build, _, err := cli.NewCommand().Find([]string{"build"})
	if err != nil {
		return nil, err
	}
	uses, err := usesOfFlags()
	if err != nil {
		return nil, err
	}
	noEffect := map[string]string{}
	for _, f := range cli.NoEffect() {
		noEffect[f[0]] = f[1]
	}
	var rows []Row
	build.LocalFlags().VisitAll(func(f *pflag.Flag) {
		r := Row{Name: "--" + f.Name, Status: Works, Tests: uses[f.Name]}
		if f.Shorthand != "" {
			r.Name += ", -" + f.Shorthand
			r.Tests = append(slices.Clone(r.Tests), uses["-"+f.Shorthand]...)
		}
		if because, ok := noEffect[f.Name]; ok {
			r.Status, r.Note = Accepted, "no effect: "+because
		}
		rows = append(rows, r)
	})
	for _, m := range cli.Missing() {
		if m.Command == "build" {
			rows = append(rows, Row{Name: "--" + m.Name, Status: Refused, Note: m.Instead, Tests: uses[m.Name]})
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	for i := range rows {
		slices.Sort(rows[i].Tests)
		rows[i].Tests = slices.Compact(rows[i].Tests)
		rows[i].Tests = rows[i].Tests[:min(len(rows[i].Tests), maxShown)]
	}
	return rows, nil
}

// usesOfFlags maps flags, without dashes, and "-x" for short ones, to the
// tests whose lines with build or args write them.
func usesOfFlags() (map[string][]string, error) {
	flag := regexp.MustCompile(`(?:^|[\s'"=])--([a-z][a-z0-9-]+)`)
	short := regexp.MustCompile(`\s(-[a-zA-Z])\b`)
	uses := map[string][]string{}
	note := func(line, test string) {
		for _, m := range flag.FindAllStringSubmatch(line, -1) {
			uses[m[1]] = append(uses[m[1]], test)
		}
		for _, m := range short.FindAllStringSubmatch(line, -1) {
			uses[m[1]] = append(uses[m[1]], test)
		}
	}
	root := filepath.Join(tree, "tests")
	err := filepath.WalkDir(filepath.Join(root, "scripts"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".txtar") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, strings.TrimSuffix(path, ".txtar"))
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.Contains(line, "build") && strings.Contains(line, "strata") {
				note(line, name)
			}
		}
		return nil
	})
	cases, globErr := filepath.Glob(filepath.Join(root, "corpus/*/case"))
	for _, f := range cases {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.HasPrefix(line, "args:") {
				note(line, "corpus/"+filepath.Base(filepath.Dir(f)))
			}
		}
	}
	return uses, errors.Join(err, globErr)
}

// compatibility is the page of all rows.
func compatibility() ([]byte, error) {
	forms, err := Forms()
	if err != nil {
		return nil, err
	}
	options, err := BuildOptions()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("<!-- Generated by go generate ./docs from docs/compatibility.tsv, the flags of build and tests/corpus. -->\n\n" + `# Compatibility

What becomes of each form of the Containerfile language, as BuildKit and buildah know it, and of each option of ` + "`build`" + `.
*works*: as the Dockerfile reference says. *accepted*: with the effect in the last column. *refused*: with an error that names it.
*missing*: not even refused. Tests are below ` + "`tests/`" + `, or Go tests; ` + "`tests/corpus/README.md`" + ` tells how cases are written.

`)
	count := map[string]int{}
	for _, r := range append(slices.Clone(forms), options...) {
		count[r.Status]++
	}
	fmt.Fprintf(&b, "Rows: %d works, %d accepted, %d refused, %d missing.\n", count[Works], count[Accepted], count[Refused], count[Missing])
	group := ""
	for _, r := range forms {
		if r.Group != group {
			group = r.Group
			b.WriteString("\n## " + group + "\n\n| form | status | tests | |\n|---|---|---|---|\n")
		}
		r.write(&b)
	}
	b.WriteString("\n## Options of build\n\nAt most three of the tests that use an option are named.\n\n| option | status | tests | |\n|---|---|---|---|\n")
	for _, r := range options {
		r.write(&b)
	}
	if err := differences(&b); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// differences lists why buildah gives something else for cases of the corpus.
func differences(b *strings.Builder) error {
	files, err := filepath.Glob(filepath.Join(tree, "tests/corpus/*/case"))
	if err != nil {
		return err
	}
	because := map[string][]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if reason, ok := strings.CutPrefix(line, "peer:"); ok {
				reason = strings.TrimSpace(reason)
				because[reason] = append(because[reason], "`"+filepath.Base(filepath.Dir(f))+"`")
			}
		}
	}
	reasons := make([]string, 0, len(because))
	for r := range because {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	fmt.Fprintf(b, "\n## Where buildah 1.28 gives something else\n\nOf the %d cases of the corpus, by `make corpus-peer`; the others give the same trees and configs.\n\n| buildah | cases |\n|---|---|\n", len(files))
	for _, r := range reasons {
		fmt.Fprintf(b, "| %s | %s |\n", cell(r), strings.Join(because[r], ", "))
	}
	return nil
}

func (r Row) write(b *strings.Builder) {
	tests := make([]string, len(r.Tests))
	for i, t := range r.Tests {
		tests[i] = "`" + t + "`"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", cell(r.Name), r.Status, strings.Join(tests, ", "), cell(r.Note))
}
