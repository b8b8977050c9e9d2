package imagebuildah_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// lines repeats a line with its number.
func lines(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// buildText builds a Containerfile in a context that holds nothing else, and
// returns what was allocated meanwhile.
func buildText(t *testing.T, e *builder.Engine, text string) (allocated uint64, err error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err = imagebuildah.Build(t.Context(), e, imagebuildah.Options{Context: buildcontext.Options{Location: dir}})
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// What a long file costs grows with its length and not with the square of it:
// a tenth of it may not allocate much less than a tenth. Not parallel: it
// measures the process.
func TestLongFiles(t *testing.T) {
	e, err := builder.Open(t.Context(), exampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const n = 9_000
	for name, line := range map[string]string{
		"undefined":  "ENV A%[1]d=$UNDEFINED%[1]d\n",
		"same":       "ENV A=$UNDEFINED%d\n",
		"legacy":     "ENV A%d value\n",
		"arguments":  "ARG A%[1]d=$UNDEFINED%[1]d\n",
		"labels":     "LABEL A%[1]d=$UNDEFINED%[1]d\n",
		"triggers":   "ONBUILD ENV A%[1]d=$B%[1]d\n",
		"healthy":    "HEALTHCHECK CMD x%d\n",
		"casing":     "env A%d=1\nENV B=1\n",
		"ports":      "EXPOSE %d/TCP\n",
		"volumes":    "VOLUME /v%d\n",
		"users":      "USER u%d\n",
		"commands":   "CMD x%d\n",
		"authors":    "MAINTAINER x%d\n",
		"shells":     "SHELL [\"/bin/x%d\"]\n",
		"signals":    "STOPSIGNAL SIGRTMIN+1\n#%d\n",
		"secrets":    "ENV TOKEN_%d=1\n",
		"same stage": "FROM scratch AS s\n#%d\n",
	} {
		short, err := buildText(t, e, "FROM scratch\n"+lines(n/10, line))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		long, err := buildText(t, e, "FROM scratch\n"+lines(n, line))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%-12s %4d MiB for %d lines, %4d for a tenth", name, long>>20, n, short>>20)
		if long > 25*short || long > 400<<20 {
			t.Errorf("%s: %d lines allocate %d MiB, a tenth of them %d", name, n, long>>20, short>>20)
		}
	}
}

// What would hold gigabytes is refused with its line before it does; counted
// in bytes allocated, for the time depends on the machine.
func TestBombs(t *testing.T) {
	e, err := builder.Open(t.Context(), exampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	big := "=" + strings.Repeat("x", 900_000) + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"doubling arguments":     {"ARG a=xxxxxxxx\n" + strings.Repeat("ARG a=$a$a\n", 100) + "FROM scratch\n", ":19: ARG: the expanded text is larger than"},
		"doubling in a stage":    {"FROM scratch\nARG a=xxxxxxxx\n" + strings.Repeat("ARG a=$a$a\n", 100), ":20: ARG a=$a$a: the expanded text is larger than"},
		"doubling variables":     {"FROM scratch\nENV a=xxxxxxxx\n" + strings.Repeat("ENV a=$a$a\n", 100), ":20: ENV a=$a$a: the expanded text is larger than"},
		"arguments of arguments": {"ARG a0" + big + "ARG b=$a0\n" + lines(2000, "ARG a%d=$b\n") + "FROM scratch\n", "the variables of the file fill in more than"},
		"variables of variables": {"FROM scratch\nENV a0" + big + "ENV b=$a0\n" + lines(2000, "ENV a%d=$b\n"), "the variables of the file fill in more than"},
		"labels of variables":    {"FROM scratch\nENV a0" + big + lines(2000, "LABEL a%d=$a0\n"), ":77: LABEL a74=$a0: the variables of the file fill in more than"},
		"thrown away":            {"FROM scratch\nENV a0" + big + lines(2000, "LABEL a%d=${a0:+}\n"), "the variables of the file fill in more than"},
		"chain of stages": {"FROM scratch AS s\n" + strings.Repeat("FROM s AS s\nENV A=1\n", 9_000),
			":1416: FROM: the stages up to here take over more than"},
		"wide stages": {"FROM scratch AS s\nENV " + lines(40_000, "A%d=1 ") + "\n" + strings.Repeat("FROM s AS s\n", 1_000),
			":15: FROM: the stages up to here take over more than"},
	} {
		allocated, err := buildText(t, e, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2_000 {
			t.Errorf("%s: %.300v; want %s", name, err, c.want)
		}
		if allocated > 1<<30 {
			t.Errorf("%s: %d MiB were allocated", name, allocated>>20)
		}
		t.Logf("%s: %d MiB, %.120v", name, allocated>>20, err)
	}
}

// Ten thousand stages that need each other, and as many that nothing needs.
func TestManyStages(t *testing.T) {
	e, err := builder.Open(t.Context(), exampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for name, text := range map[string]string{
		"alone": lines(10_000, "FROM scratch AS s%d\n"),
		"chain": "FROM scratch AS s\n" + strings.Repeat("FROM s AS s\n", 10_000),
		"bases": strings.Repeat("FROM scratch\nENV A=1\n", 9_999),
	} {
		allocated, err := buildText(t, e, text)
		if err != nil || allocated > 512<<20 {
			t.Errorf("%s: %d MiB were allocated, %v", name, allocated>>20, err)
		}
		t.Logf("%s: %d MiB", name, allocated>>20)
	}
}
