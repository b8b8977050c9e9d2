package containerfile

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

// What no honest file holds is refused with its line, in memory that does not
// depend on how much of it there is. Not parallel: it measures the process.
func TestBounds(t *testing.T) {
	const from = "FROM scratch\n"
	for name, c := range map[string]struct{ in, want string }{
		"instructions":  {from + strings.Repeat("ENV a=$b\n", 1_000_000), fmt.Sprintf("f:%d: more than", MaxInstructions+1)},
		"stages":        {strings.Repeat(from, 100_000), fmt.Sprintf("f:%d: more than", MaxInstructions+1)},
		"continuation":  {from + "RUN a" + strings.Repeat("\\\n", 4_000_000), "f:2: RUN: more than 100000 lines"},
		"words":         {from + "ENV " + strings.Repeat("A=b ", 100_000), "f:2: ENV: more than 50000 words"},
		"list":          {from + "CMD [" + strings.Repeat(`"a",`, 100_000) + `"a"]`, "f:2: CMD: more than 50000 words"},
		"one line":      {from + "RUN " + strings.Repeat("x", 3<<20), "f:2: RUN: more than 2 MiB"},
		"open brackets": {from + "CMD " + strings.Repeat("[", 3<<20), "f:2: CMD: more than 2 MiB"},
		"ports":         {from + strings.Repeat("EXPOSE 0-65535\n", 1_000), "f:5: EXPOSE: more than 200000 ports"},
		"open heredoc":  {from + "COPY <<E /\n" + strings.Repeat("x\n", 1_000_000), "f:2: COPY: the heredoc <<E is not ended"},
		"heredocs":      {from + "RUN " + strings.Repeat("<<E ", 100_000) + "\n", "f:2: RUN: the heredoc <<E is not ended"},
		"nul":           {from + strings.Repeat("#\n", 1_000_000) + "RUN a\x00", "f:1000002: holds a NUL byte"},
		"bytes":         {from + "RUN " + strings.Repeat("\xff", 50_000), "f:2: RUN: byte 0xff in column 5 is not UTF-8"},
		"self":          {"FROM x AS a\nCOPY --from=a x y", "f:2: COPY: from=a is this stage itself"},
		"cycle":         {"FROM x AS a\nCOPY --from=b x y\nFROM a AS b", "f:2: COPY: from=b is a later stage"},
	} {
		input := []byte(c.in)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse("f", input)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || len(err.Error()) > 1_000 {
			t.Errorf("%s: %.200v; want %s", name, err, c.want)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
			t.Errorf("%s: %d MiB were allocated", name, used>>20)
		}
	}
}

// The largest file that is taken stays within its bounds, too.
func TestLargest(t *testing.T) {
	for name, in := range map[string]string{
		"words":  "FROM x\nENV " + strings.Repeat("A=b ", MaxWords-1),
		"chain":  "FROM x AS s0\n" + chain(MaxInstructions-1),
		"mounts": "FROM x\n" + strings.Repeat("RUN --mount=type=cache,target=/x a\n", MaxInstructions-1),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f, err := Parse("f", []byte(in))
		if err == nil {
			_, err = f.Graph("", nil)
		}
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 512<<20 {
			t.Errorf("%s: %d MiB were allocated", name, used>>20)
		}
	}
}

func chain(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "FROM s%d AS s%d\n", i-1, i)
	}
	return b.String()
}

func TestNoPlausibleImage(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "a/b/c:1": true, "reg.example:5000/a_b-c.d:T.1": true, "localhost/x@sha256:ab": true, "oci:/some Dir:x": true,
		"": false, ":1": false, "a:": false, "a//b": false, "A": false, "a@": false, "a/-b": false, "a:-x": false, "a b": false, "a@b@c": false,
	} {
		if got := plausibleImage(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// An error is a line, however long the instruction is.
func TestLongInstructionInError(t *testing.T) {
	t.Parallel()
	text := (&Error{File: "f", Line: 2, Instruction: "x" + strings.Repeat("\u00e9", 1<<19), Err: errors.New("why")}).Error()
	if len(text) > 2*maxShown || !strings.HasSuffix(text, "\u00e9...: why") || !utf8.ValidString(text) {
		t.Errorf("%.400s", text)
	}
}
