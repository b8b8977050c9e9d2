package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/docs"
)

// TestCompatibility checks the rows of docs/compatibility.tsv: a row names
// tests that exist, and they show what its status says.
func TestCompatibility(t *testing.T) {
	all, err := docs.Rows()
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := docs.Split(all) // TestOptions is about the others
	if len(rows) < 248 {
		t.Errorf("%d rows", len(rows))
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.Name] {
			t.Errorf("%s: twice", r.Name)
		}
		seen[r.Name] = true
		if len(r.Tests) == 0 && r.Status != docs.Missing {
			t.Errorf("%s: %s, and no test shows it", r.Name, r.Status)
		}
		if r.Note == "" && (r.Status == docs.Accepted || r.Status == docs.Missing) {
			t.Errorf("%s: %s wants a note", r.Name, r.Status)
		}
		fails := 0
		for _, name := range r.Tests {
			switch failing, err := shows(name); {
			case err != nil:
				t.Errorf("%s: %v", r.Name, err)
			case failing:
				fails++
			}
		}
		if r.Status == docs.Refused && fails == 0 {
			t.Errorf("%s: refused, and no case wants an error", r.Name)
		}
	}
}

// shows reports whether a test exists, and whether it wants an error.
func shows(name string) (failing bool, err error) {
	kind, rest, _ := strings.Cut(name, "/")
	switch {
	case kind == "corpus":
		c, err := readCase(filepath.Join("corpus", rest))
		if err != nil {
			return false, err
		}
		_, failing = c.section("error")
		return failing, nil
	case kind == "scripts":
		text, err := os.ReadFile(name + ".txtar")
		return strings.Contains(string(text), "\n! exec strata"), err
	}
	_, err = goTest(name)
	return false, err
}
