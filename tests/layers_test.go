package tests

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/stratabuild/strata/"

// overview is the document whose table of imports the code must keep to.
const overview = "../docs/design/overview.md"

// rule is one row of the table: packages that match any of names may import
// ours that match any of allowed. A name with a trailing /* stands for what
// lies below it, without the package itself. The first row that matches a
// package is about it.
type rule struct{ names, allowed []string }

// TestLayers reads the imports of every package and compares them with the
// table in the overview.
func TestLayers(t *testing.T) {
	rules := readRules(t)
	used := make([]bool, len(rules))
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n != ".." && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		// What tests and examples import is their own affair.
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		checkFile(t, file, rules, used)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range used {
		if !u {
			t.Errorf("%s: the row of %q stands for no package", overview, rules[i].names)
		}
	}
}

func checkFile(t *testing.T, file string, rules []rule, used []bool) {
	t.Helper()
	rel := filepath.ToSlash(strings.TrimPrefix(file, "../"))
	pkg := path.Dir(rel)
	if strings.HasPrefix(pkg, "tests") {
		return // tests may use everything
	}
	i := slices.IndexFunc(rules, func(r rule) bool { return matchAny(r.names, pkg) })
	if i < 0 {
		t.Errorf("%s: no row of %s is about package %s", rel, overview, pkg)
		return
	}
	used[i] = true
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, imp := range parsed.Imports {
		to, ours := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
		if ours && !matchAny(rules[i].allowed, to) {
			t.Errorf("%s imports %s; packages %s may import: %s", rel, to,
				strings.Join(rules[i].names, ", "), strings.Join(rules[i].allowed, ", "))
		}
	}
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "/*"); ok {
			return strings.HasPrefix(pkg, prefix+"/")
		}
		return p == pkg
	})
}

var code = regexp.MustCompile("`([^`]+)`")

// readRules reads the rows between the markers of the overview: package names
// in code quotes, those in the first column and those in the second.
func readRules(t *testing.T) []rule {
	t.Helper()
	b, err := os.ReadFile(overview)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "<!-- imports -->")
	table, _, ok2 := strings.Cut(rest, "<!-- end of imports -->")
	if !ok || !ok2 {
		t.Fatalf("%s: the table of imports is not between its markers", overview)
	}
	var rules []rule
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		rules = append(rules, rule{names: words(cells[1]), allowed: words(cells[2])})
	}
	if len(rules) == 0 {
		t.Fatalf("%s: the table of imports has no rows", overview)
	}
	return rules
}

func words(cell string) []string {
	var out []string
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}
