package check

import (
	"io"
	"strings"
	"testing"

	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// FuzzLint asks all questions about a file: none may panic, and what is
// printed may not control a terminal.
func FuzzLint(f *testing.F) {
	for _, s := range []string{
		"FROM x\nMAINTAINER y\n", "ARG A=1\nFROM a:$A AS b\nENV C=$D\nFROM b\nCOPY $C /\n", "FROM scratch\nRUN --mount=type=secret,id=a,required x\n",
		"# check=experimental=all\n# d\nFROM a AS b", "FROM scratch\nCOPY <<E /f\n$X\nE\n", "FROM a\nCMD x\nCMD \\\n\n y", "FROM scratch\nENV A=${B:?c}",
		"ARG A=$B\nARG B=${A}x\nFROM ${B:-c}\nARG A", "FROM --platform=$TARGETPLATFORM a as B",
	} {
		f.Add(s, "a")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text, target string) {
		options := func(target string) Options {
			return Options{Context: buildcontext.Options{Location: dir, Files: []string{"-"}, Stdin: strings.NewReader(text)}, Target: target,
				BuildArgs: map[string]string{"A": target}}
		}
		for _, target := range []string{"", target} {
			if r, err := Lint(t.Context(), options(target)); err == nil {
				var out strings.Builder
				if err := r.WriteText(&out); err != nil {
					t.Fatal(err)
				}
				if strings.ContainsAny(out.String(), "\x1b\x00") {
					t.Fatalf("%q", out.String())
				}
				if e := r.Err(); e != nil && strings.ContainsAny(e.Error(), "\n\x1b") {
					t.Fatalf("%q", e)
				}
			}
			if o, err := Find(t.Context(), options(target)); err == nil {
				if err := o.WriteText(io.Discard); err != nil {
					t.Fatal(err)
				}
			}
		}
		if l, err := List(t.Context(), options("")); err == nil {
			if err := l.WriteText(io.Discard); err != nil {
				t.Fatal(err)
			}
		}
	})
}
