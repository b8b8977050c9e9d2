package copier

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/fstree"
)

// notMatching leaves a name out; below "keep" directories it leaves out all but
// what is called "in".
type leaveOut struct{ inside bool }

func (m leaveOut) Excluded(path string) (bool, bool, error) {
	base := filepath.Base(path)
	if m.inside {
		return base != "in", true, nil
	}
	return base == "out", false, nil
}

// TestScan: digests that Select makes on its way are those that a later look
// gives, sorted by path, whatever is left out.
func TestScan(t *testing.T) {
	t.Parallel()
	var spec strings.Builder
	spec.WriteString("/d/a/x file \"1\"\n/d/a/out file \"2\"\n/d/a-b file \"3\"\n/d/a.c/in file \"4\"\n/d/a.c/in2 link -> in\n" +
		"/d/-x/y file \"5\"\n/d/empty dir\n/d/out/in file \"6\"\n/d/h hard /d/a/x\n/e/x hard /d/a/x\n/e/p fifo 0600\n/f file \"7\"\n")
	for i := range 3 * scanPart {
		fmt.Fprintf(&spec, "/d/many/f%d file \"%d\"\n", i, i)
	}
	r, _ := makeRoot(t, spec.String(), false)
	ctx := context.Background()
	for name, s := range map[string]Select{
		"one":       {Patterns: []string{"d"}},
		"root":      {Patterns: []string{"."}},
		"several":   {Patterns: []string{"e", "d", "f", "*"}},
		"ignored":   {Patterns: []string{"d", "f"}, Ignore: leaveOut{}},
		"exception": {Patterns: []string{"."}, Ignore: leaveOut{inside: true}},
		"exclude":   {Patterns: []string{"d"}, Exclude: []string{"a*", "!a.c/in2"}},
		"parents":   {Patterns: []string{"d/a*/x", "./d/./**/in"}, Parents: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, err := r.Select(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			later, err := plain.Digests(ctx, DigestOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := later.List()
			if len(want) != later.Len() || len(want) == 0 {
				t.Errorf("%d of %d digests", len(want), later.Len())
			}
			if !slices.IsSortedFunc(want, func(a, b FileDigest) int { return strings.Compare(a.Path, b.Path) }) {
				t.Errorf("not sorted: %v", want)
			}
			x := &mapIndex{}
			for range 2 {
				for _, o := range []DigestOptions{{}, {Index: x}} {
					s := s
					s.Digest = &o
					sel, err := r.Select(ctx, s)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := sel.Digests(ctx, o); err != nil || !slices.Equal(got.List(), want) {
						t.Errorf("digests of Select, %v:\n%v\nwant\n%v", err, got.List(), want)
					}
					// Other options are not taken for these.
					if got, err := sel.Digests(ctx, DigestOptions{KeepOwner: true}); err != nil || slices.Equal(got.List(), want) {
						t.Errorf("owners do not count after Select, %v", err)
					}
				}
			}
		})
	}
}

// A tree that is large in each way: deep, wide, and of many directories.
func TestScanLarge(t *testing.T) {
	t.Parallel()
	r, dir := makeRoot(t, "/d dir", false)
	makeDeep(t, filepath.Join(dir, "d"), "deep", 300)
	for i := range 300 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("d/w%d", i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fstree.Make(t, dir, "/d/w7/f file \"x\"")
	sel, err := r.Select(context.Background(), Select{Patterns: []string{"."}, Digest: &DigestOptions{}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := sel.Digests(context.Background(), DigestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.List()); n != d.Len() || n < 300+300+3 {
		t.Errorf("%d digests of %d", n, d.Len())
	}
}

// What changes while a selection is made or between its uses is an error or is
// seen; a Selection whose error was one can be used again.
func TestScanChanged(t *testing.T) {
	t.Parallel()
	r, dir := makeRoot(t, "/d/f file \"x\"\n/d/s/g file \"y\"", false)
	ctx := context.Background()
	sel, err := r.Select(ctx, Select{Patterns: []string{"d"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "d/s"), filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../s", filepath.Join(dir, "d/s")); err != nil {
		t.Fatal(err)
	}
	if _, err := sel.Digests(ctx, DigestOptions{}); err == nil || !strings.Contains(err.Error(), "d/s changed while reading") {
		t.Errorf("a directory exchanged for a link: %v", err)
	}
	os.Remove(filepath.Join(dir, "d/s"))
	if err := os.Rename(filepath.Join(dir, "s"), filepath.Join(dir, "d/s")); err != nil {
		t.Fatal(err)
	}
	if d, err := sel.Digests(ctx, DigestOptions{}); err != nil || d.Len() != 4 {
		t.Errorf("after it came back: %v, %v", d, err)
	}
}
