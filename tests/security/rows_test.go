package security

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// rows is the number of rows of the catalogue.
const rows = 87

// TestRows: each row has tests that exist, or a reason.
func TestRows(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("rows.tsv")
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`^(CVE-\d{4}-\d+|GHSA(-[0-9a-z]{4}){3}|[a-z]+(-[a-z]+)*-[0-9.]+)$`)
	next := 1
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 || f[0] != strconv.Itoa(next) || !id.MatchString(f[1]) {
			t.Fatalf("row %d is malformed: %q", next, line)
		}
		next++
		if reason, ok := strings.CutPrefix(f[2], "- "); ok {
			if len(reason) < 20 {
				t.Errorf("row %s: the reason is too short: %q", f[0], reason)
			}
			continue
		}
		for test := range strings.SplitSeq(f[2], "; ") {
			if !exists(t, test) {
				t.Errorf("row %s (%s): there is no test %s", f[0], f[1], test)
			}
		}
	}
	if next != rows+1 {
		t.Errorf("%d rows, want %d", next-1, rows)
	}
}

// exists looks a test up: in a package, among the scripts, or among the cases
// of the suite that all isolations pass.
func exists(t *testing.T, test string) bool {
	t.Helper()
	where, name, ok := strings.Cut(test, ":")
	switch {
	case !ok:
		return false
	case where == "script":
		_, err := os.Stat(filepath.Join("../scripts", name+".txtar"))
		return err == nil
	case where == "suite":
		return mentions(t, "../../builder/isolation/isolationtest/*.go", strconv.Quote(name))
	}
	return mentions(t, filepath.Join("../..", where, "*_test.go"), "func "+name+"(")
}

func mentions(t *testing.T, pattern, text string) bool {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			return true
		}
	}
	return false
}
