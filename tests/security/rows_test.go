package security

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/testenv"
)

// rows is the number of rows of the catalogue.
const rows = 87

// attack is one try to do what a weakness allowed, in this package.
type attack struct {
	rows []int // what it is an example of; it runs for the first of them that is tested
	name string
	run  func(p *place)
}

func attacks() []attack {
	return slices.Concat(archiveAttacks(), contextAttacks(), mountAttacks(), configAttacks(), rootAttacks(), stepAttacks(), programAttacks(),
		streamAttacks(), raceAttacks(), hostAttacks(), imageAttacks(), remoteAttacks())
}

// row is a line of rows.tsv.
type row struct {
	number    int
	ids       []string
	elsewhere []string // tests of other packages
	reason    string   // why it cannot apply
}

func readRows(t *testing.T) (all []row) {
	t.Helper()
	b, err := os.ReadFile("rows.tsv")
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`^(CVE-\d{4}-\d+|GHSA(-[0-9a-z]{4}){3}|GO-\d{4}-\d+|[a-z]+(-[a-z]+)*-[0-9.]+)$`)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 || f[0] != strconv.Itoa(len(all)+1) {
			t.Fatalf("row %d is malformed: %q", len(all)+1, line)
		}
		r := row{number: len(all) + 1, ids: strings.Split(f[1], ",")}
		for _, i := range r.ids {
			if !id.MatchString(i) {
				t.Fatalf("row %d: %q is no id", r.number, i)
			}
		}
		if reason, ok := strings.CutPrefix(f[2], "- "); ok {
			r.reason = reason
		} else if f[2] != "" {
			r.elsewhere = strings.Split(f[2], "; ")
		}
		all = append(all, r)
	}
	if len(all) != rows {
		t.Fatalf("%d rows, want %d", len(all), rows)
	}
	return all
}

// TestRows has a subtest for each row of the catalogue, whose name is all ids
// of the row: go test -run /CVE-2024-1753 tries that row. An attack that
// belongs to several of the rows that are tested runs for the first of them.
func TestRows(t *testing.T) {
	binary, err := os.ReadFile(testenv.Strata(t))
	if err != nil {
		t.Fatal(err)
	}
	before := sha256.Sum256(binary)
	t.Cleanup(func() {
		if b, err := os.ReadFile(testenv.Strata(t)); err != nil || sha256.Sum256(b) != before {
			t.Errorf("the program was changed (%v)", err)
		}
	})
	byRow := map[int][]int{} // numbers of attacks
	all := attacks()
	for i, a := range all {
		for _, r := range a.rows {
			byRow[r] = append(byRow[r], i)
		}
	}
	tried := map[int]string{} // where an attack runs
	for _, r := range readRows(t) {
		t.Run(strings.Join(r.ids, "+"), func(t *testing.T) {
			var mine []attack
			for _, i := range byRow[r.number] {
				if by := tried[i]; by != "" {
					t.Logf("%q runs for %s", all[i].name, by)
					continue
				}
				tried[i] = r.ids[0]
				mine = append(mine, all[i])
			}
			switch known := len(byRow[r.number]) + len(r.elsewhere); {
			case r.reason != "" && len(r.reason) < 20:
				t.Errorf("row %d: the reason is too short: %q", r.number, r.reason)
			case r.reason == "" && known == 0:
				t.Errorf("row %d: no test and no reason", r.number)
			}
			for _, test := range r.elsewhere {
				if !exists(t, test) {
					t.Errorf("row %d: there is no test %s", r.number, test)
				}
			}
			if len(mine) == 0 {
				return
			}
			t.Parallel()
			p := newPlace(t)
			for _, a := range mine {
				t.Run(a.name, func(t *testing.T) { a.run(p.on(t)) })
			}
		})
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
