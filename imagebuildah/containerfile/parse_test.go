package containerfile

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/stratabuild/strata/define"
)

func mustParse(t testing.TB, text string) *File {
	t.Helper()
	f, err := Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGraph(t *testing.T) {
	t.Parallel()
	f := mustParse(t, `ARG BASE=one
FROM a AS one
FROM b AS two
COPY --from=one x y
FROM ${BASE} AS three
RUN --mount=from=two,target=/m true
FROM c AS four
FROM four
COPY --from=2 x y
`)
	expand := func(word string) (string, error) { return strings.ReplaceAll(word, "${BASE}", "One"), nil }
	for target, want := range map[string][]int{"": {0, 1, 2, 3, 4}, "one": {0}, "TWO": {0, 1}, "three": {0, 1, 2}, "3": {3}, "4": {0, 1, 2, 3, 4}} {
		g, err := f.Graph(target, expand)
		if err != nil || !reflect.DeepEqual(g.Needed, want) || g.Target != want[len(want)-1] {
			t.Errorf("%q: %+v, %v", target, g, err)
		}
	}
	g, err := f.Graph("", expand)
	if err != nil || !reflect.DeepEqual(g.Deps[2], []int{0, 1}) || g.BaseStage[2] != 0 || g.Bases[3] != "c" {
		t.Errorf("%+v, %v", g, err)
	}
	for target, want := range map[string]string{
		"fuor": "Containerfile: no stage fuor; did you mean four?",
		"zzz":  "Containerfile: no stage zzz; the stages are one, two, three, four",
		"5":    "Containerfile: no stage 5; the stages are one, two, three, four",
	} {
		if _, err := f.Graph(target, expand); err == nil || err.Error() != want || !errors.Is(err, define.ErrNotFound) {
			t.Errorf("%q: %v", target, err)
		}
	}
	if _, err := f.Graph("", func(string) (string, error) { return "", nil }); err == nil ||
		!strings.HasPrefix(err.Error(), "Containerfile:8: FROM: the base four is empty after expansion") {
		t.Errorf("empty base: %v", err)
	}
	boom := errors.New("boom")
	if _, err := f.Graph("", func(string) (string, error) { return "", boom }); !errors.Is(err, boom) {
		t.Errorf("expand: %v", err)
	}
}

func TestStageByName(t *testing.T) {
	t.Parallel()
	f := mustParse(t, "FROM a AS one\nFROM b\nFROM c AS three\n")
	for _, c := range []struct {
		name   string
		before int
		want   int
		ok     bool
	}{{"one", 3, 0, true}, {"ONE", 1, 0, true}, {"one", 0, 0, false}, {"1", 3, 1, true}, {"2", 2, 2, false}, {"three", 99, 2, true}, {"", 3, 0, false}, {"-1", 3, 0, false}, {"01", 3, 1, true}} {
		if i, ok := f.StageByName(c.name, c.before); ok != c.ok || ok && i != c.want {
			t.Errorf("%q before %d: %d, %v", c.name, c.before, i, ok)
		}
	}
}

func TestParseOnBuild(t *testing.T) {
	t.Parallel()
	for trigger, want := range map[string]string{
		"RUN a": "RUN", "COPY <<EOF /f\nx\nEOF": "COPY", "arg A=1": "ARG", "HEALTHCHECK NONE": "HEALTHCHECK",
	} {
		in, err := ParseOnBuild("img", trigger)
		if err != nil || in.Keyword != want || in.Command == nil || in.Fresh() == nil {
			t.Errorf("%q: %+v, %v", trigger, in, err)
		}
	}
	for trigger, want := range map[string]string{
		"":                   "ONBUILD of img:1: the file is empty; begin with FROM image",
		"FROM x":             "ONBUILD of img:1: FROM: is not allowed as an ONBUILD trigger",
		"ONBUILD RUN x":      "ONBUILD of img:1: ONBUILD: is not allowed as an ONBUILD trigger",
		"MAINTAINER x":       "ONBUILD of img:1: MAINTAINER: is not allowed as an ONBUILD trigger",
		"RUN a\nRUN b":       "ONBUILD of img:1: RUN: a trigger is one instruction, this has 2",
		"RNU a":              "ONBUILD of img:1: RNU: unknown instruction; did you mean RUN?",
		"RUN a\x00":          "ONBUILD of img:1: holds a NUL byte; the file must be plain text",
		"COPY --chmod=z a b": "ONBUILD of img:1: COPY: --chmod=z: want octal digits such as 0755, or clauses such as u=rwX,go=rX",
	} {
		if _, err := ParseOnBuild("img", trigger); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %s", trigger, err, want)
		}
	}
}

// Fresh gives every user of a File commands of their own.
func TestFresh(t *testing.T) {
	t.Parallel()
	f := mustParse(t, "FROM x\nCOPY $A b\nRUN --mount=type=cache,target=$T x\nEXPOSE 2 1\n")
	for _, in := range f.Stages[0].Instructions {
		c := in.Fresh()
		if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
			if err := e.Expand(func(string) (string, error) { return "CHANGED", nil }); err != nil && !strings.Contains(err.Error(), "CHANGED") {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(in.Fresh(), in.Command) {
			t.Errorf("%s: %+v is not %+v", in.Text, in.Fresh(), in.Command)
		}
	}
	if c := f.Stages[0].From.Fresh(); c != nil {
		t.Errorf("FROM: %v", c)
	}
}

// Lines longer than BuildKit's parser takes come through unchanged, with the
// right line numbers.
func TestLongLines(t *testing.T) {
	t.Parallel()
	word := strings.Repeat("abc # def \\x ", 100_000)
	body := strings.Repeat("x\ty #", 100_000)
	f := mustParse(t, "# escape=\\\nFROM x\nRUN echo "+word+"\\\n   end\n# "+body+"\nRUN <<EOF\n"+body+"\nshort\n"+body+"\nEOF\n"+strings.Repeat(" ", 200_000)+"\nUSER a\n")
	in := f.Stages[0].Instructions
	if len(in) != 3 || in[0].Line != 3 || in[1].Line != 6 || in[2].Line != 12 {
		t.Fatalf("%d instructions", len(in))
	}
	if in[0].Text != "RUN echo "+word+"   end" {
		t.Errorf("the long line has changed: %d bytes", len(in[0].Text))
	}
	if run := in[1].Command.(*instructions.RunCommand); run.Files[0].Data != body+"\nshort\n"+body+"\n" {
		t.Errorf("the long heredoc has changed: %d bytes", len(run.Files[0].Data))
	}
	_, err := Parse("f", []byte("FROM x\nRUN a"+strings.Repeat(" ", 200_000)+"b\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "f:2: more than 60000 bytes in a line without a place to cut it") {
		t.Errorf("%v", err)
	}
	_, err = Parse("f", []byte("FROM x\nRUN "+word+"\nNOPE\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "f:3: NOPE: unknown instruction") {
		t.Errorf("%v", err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"size":         {strings.Repeat("#", MaxSize+1), "f: larger than 16 MiB"},
		"instructions": {"FROM x\n" + strings.Repeat("A\n", MaxInstructions), fmt.Sprintf("f:%d: more than 20000 instructions", MaxInstructions+1)},
		"onbuild":      {"FROM x\nONBUILD" + strings.Repeat(" ONBUILD", 1_000_000), "f:2: "},
		"onbuild flag": {"FROM x\n" + strings.Repeat("ONBUILD --a ", 5_000), "f:2: ONBUILD: ONBUILD ONBUILD is not allowed"},
		"nesting":      {"FROM x\nRUN <<E " + strings.Repeat("${A:-", 11_000) + "\nE\n", "f:2: RUN: 11000 substitutions"},
	} {
		if _, err := Parse("f", []byte(c.in)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %.200v; want %s", name, err, c.want)
		}
	}
	mustParse(t, "FROM x\nRUN a"+strings.Repeat(" \\\n b", 100_000))
	f := mustParse(t, "FROM x\n"+strings.Repeat("RUN <<E\nE\n", MaxInstructions-1))
	if n := len(f.Stages[0].Instructions); n != MaxInstructions-1 {
		t.Errorf("%d instructions", n)
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"80": "80/tcp", "80/": "80/tcp", "53/UDP": "53/udp", "8000-8002/sctp": "8000/sctp 8001/sctp 8002/sctp", "80-80": "80/tcp",
		"127.0.0.1:80:8080": "8080/tcp", "1:2": "2/tcp", "[::1]:80:81/udp": "81/udp", "0": "0/tcp",
	} {
		if got, err := Ports(in); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "/tcp", "a", "-1", "1-", "2-1", "65536", "80/icmp", "+80", "0x50", "1-70000", " 80"} {
		if got, err := Ports(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestCheckSignal(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"SIGTERM", "term", "KILL", "9", "64", "SIGRTMIN", "SIGRTMIN+3", "RTMAX-1", "rtmax"} {
		if err := CheckSignal(in); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "SIG", "SIGFOO", "SIGRTMIN-1", "SIGRTMIN+99", "SIGRTMIN+", "RTMAX+1"} {
		if err := CheckSignal(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"FROM x\nRUN <<EOF\na\nEOF\n", "# escape=`\nFROM x\nRUN a `\n b", "FROM a AS b\nFROM c\nCOPY --from=b x y", "FROM x\nONBUILD RUN <<-E\n\tE",
		"ARG A=1\nFROM $A", "FROM x\nHEALTHCHECK --interval=1s CMD [\"a\"]", "FROM x\nENV a=\"b c\" d='e'", "\uFEFFFROM x\r\nRUN a \\\r\n b\r\n",
		"FROM x\nRUN --mount=type=cache,target=/x,id=\"a,b\" a", "FROM x\nEXPOSE 1-3/udp", "# check=skip=all;error=true\nfrom x", "FROM x\nCOPY <<'A' <<B /d/\nA\nB\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("f", []byte(text))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Fatalf("%q", err)
			}
			return
		}
		for _, s := range file.Stages {
			if s.From.Line < 1 || s.From.Fresh() != nil {
				t.Fatalf("%+v", s.From)
			}
			for _, in := range s.Instructions {
				if in.Line < 1 || in.Line > 1+strings.Count(text, "\n") || in.Command == nil || in.Fresh() == nil || strings.Contains(in.Text, "\n") {
					t.Fatalf("%+v", in)
				}
			}
		}
		if _, err := file.Graph("", nil); err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Fatalf("%q", err)
		}
		_, _ = ParseOnBuild("img", text)
	})
}

// The largest file that is read: 100,000 instructions.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString("FROM x\n")
	for i := range (MaxInstructions - 1) / 4 {
		fmt.Fprintf(&text, "RUN --mount=type=cache,target=/c%d make \\\n  -j4 target%d\nCOPY a%d b%d /d/\nENV A%d=$A B=\"c d\"\nLABEL l%d=x\n", i, i, i, i, i, i)
	}
	content := []byte(text.String())
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := Parse("f", content); err != nil {
			b.Fatal(err)
		}
	}
}

// As many stages as the limit allows, each using the one before.
func BenchmarkStages(b *testing.B) {
	var text strings.Builder
	text.WriteString("FROM x AS s0\n")
	for i := 1; i < MaxInstructions/2; i++ {
		fmt.Fprintf(&text, "FROM s%d AS s%d\nCOPY --from=s%d a b\n", i-1, i, i/2)
	}
	content := []byte(text.String())
	for b.Loop() {
		f, err := Parse("f", content)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Graph("", nil); err != nil {
			b.Fatal(err)
		}
	}
}

// Row "FROM | --after".
func TestAfter(t *testing.T) {
	t.Parallel()
	f, err := Parse("f", []byte("FROM x AS a\nFROM x AS b\nFROM x AS c\nFROM --after=a --platform=linux/amd64 --after=B y\n"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.Graph("", nil)
	if err != nil || f.Stages[3].After != "B" || f.Stages[3].Platform != "linux/amd64" || !slices.Equal(g.Needed, []int{1, 3}) || !slices.Equal(g.Deps[3], []int{1}) {
		t.Errorf("%+v, %v", g, err)
	}
	for text, want := range map[string]string{
		"FROM x AS early\nFROM --after=earl x": "f:2: FROM: --after=earl is no earlier stage; did you mean early?",
		"FROM --after=a x AS a":                "f:1: FROM: --after=a is no earlier stage",
		"FROM --after=1 x\nFROM x":             "f:1: FROM: --after=1 is no earlier stage",
		"FROM --after= x":                      "f:1: FROM: --after=\"\" is no earlier stage",
		"FROM --after x":                       "f:1: FROM: ",
	} {
		if _, err := Parse("f", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
