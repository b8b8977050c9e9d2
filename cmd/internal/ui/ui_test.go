package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":                       "plain",
		"ünï ✓":                       "ünï ✓",
		"a\nb\rc\td":                  `a\nb\rc d`,
		"\x1b[31mred":                 `\x1b[31mred`,
		"bell\a del\x7f":              `bell\x07 del\x7f`,
		"c1 \u0085\u009b":             `c1 \u0085\u009b`,
		"bidi \u202eabc\u2066":        `bidi \u202eabc\u2066`,
		"bad \xff\xfe":                `bad \xff\xfe`,
		"https://u:p@h/x":             "https://***@h/x",
		"https://u:p@ss@h/x y://a@b":  "https://***@h/x y://***@b",
		"ssh://git@h/x https://h/@x":  "ssh://git@h/x https://h/@x",
		"https://h?x=1@2, https://t@": "https://h?x=1@2, https://***@",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[2J\u202e\xff ://u:p@h")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if again := escape(got); again != got {
			t.Errorf("Clean(%q) = %q is not clean: %q", s, got, again)
		}
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	var whole, pieces tail
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	text.WriteString("partial")
	whole.Write([]byte(text.String()))
	for i := 0; i < text.Len(); i += 7 {
		pieces.Write([]byte(text.String()[i:min(i+7, text.Len())]))
	}
	want := "line 997 line 998 line 999 partial"
	for name, tl := range map[string]*tail{"whole": &whole, "pieces": &pieces} {
		if got := strings.Join(tl.Last(4), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if n := len(tl.Last(1000)); n > TailLines+1 {
			t.Errorf("%s: keeps %d lines", name, n)
		}
	}
}

func TestTailBoundsLines(t *testing.T) {
	t.Parallel()
	var tl tail
	long := bytes.Repeat([]byte("x"), 1<<16)
	for range 64 {
		tl.Write(long)
	}
	if cap(tl.partial) > 4*MaxLine {
		t.Errorf("holds %d bytes of an endless line", cap(tl.partial))
	}
	if got := tl.Last(1)[0]; len(got) != MaxLine+3 || !strings.HasSuffix(got, "...") {
		t.Errorf("the cut line has %d bytes", len(got))
	}
}

func BenchmarkTail(b *testing.B) {
	chunk := bytes.Repeat([]byte("y\n"), 16<<10)
	var tl tail
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		tl.Write(chunk)
	}
}

func TestDrawable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m":         "red",
		"10%\r50%\r100%\r":           "100%",
		"a\tb":                       "a    b",
		"\x1b]0;title\x07text":       "text",
		"\x1b]8;;x\x1b\\link":        "link",
		"\x1b(Bplain \x1b[?25lx":     "plain x",
		"cut \x1b[":                  "cut ",
		"\x1bM\x1b7up":               "up",
		"bell\a":                     `bell\x07`,
		"\x1b[38;2;1;2;3mcolour\x1b": "colour",
	} {
		if got := drawable(in); got != want {
			t.Errorf("drawable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzDrawable(f *testing.F) {
	f.Add("\x1b[31mred\x1b]0;t\x07")
	f.Fuzz(func(t *testing.T, s string) {
		if got := drawable(s); escape(got) != got {
			t.Errorf("drawable(%q) = %q is not clean", s, got)
		}
	})
}

// step is a step of a build with several stages.
func step(id int, stage string, n int, text string) *define.Step {
	return &define.Step{ID: id, Stage: stage, N: n, Of: 2, Text: text, File: "Containerfile", Line: id}
}

// twoStages is a build in which two stages run at the same time.
func twoStages() []define.Event {
	a, b, last := step(1, "a", 1, "FROM scratch AS a"), step(2, "b", 1, "RUN make"), step(3, "b", 2, "RUN ev\x1bil")
	now := time.Now()
	return []define.Event{
		{Kind: define.EventPlan, Of: 4},
		{Kind: define.EventStepCached, Step: a, Layer: "0123456789abcdef"},
		{Kind: define.EventStepStart, Step: step(4, "a", 2, "RUN other"), Time: now},
		{Kind: define.EventStepStart, Step: b, Time: now},
		{Kind: define.EventStepOutput, Step: b, Data: []byte("one\ntw")},
		{Kind: define.EventStepOutput, Step: step(4, "a", 2, "RUN other"), Data: []byte("x\n")},
		{Kind: define.EventStepOutput, Step: b, Data: []byte("o\n")},
		{Kind: define.EventStepDone, Step: b, Elapsed: 1500 * time.Millisecond, Layer: "fedcba9876543210"},
		{Kind: define.EventStepDone, Step: step(4, "a", 2, "RUN other"), Layer: "00"},
		{Kind: define.EventExplain, Step: last, Text: "executed: the step before it was executed"},
		{Kind: define.EventStepStart, Step: last, Time: now},
		{Kind: define.EventStepOutput, Step: last, Data: []byte("\x1b[1mraw\x1b[0m no end")},
		{Kind: define.EventWarning, File: "Containerfile", Line: 7, Text: "careful\nnow"},
		{Kind: define.EventStepDone, Step: last, Err: errors.New("exit status 3")},
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newPlain(Options{Out: &out})
	for _, e := range twoStages() {
		p.Event(e)
	}
	p.Fail(Failure{File: "Containerfile", Line: 3, Instruction: "RUN ev\x1bil", Text: "Containerfile:3: RUN ev\x1bil: exit status 3"})
	p.Close()
	want := `[a] STEP 1/2: FROM scratch AS a
[a] --> Using cache 0123456789ab
[a] STEP 2/2: RUN other
[b] STEP 1/2: RUN make
[b] one
[a] x
[b] two
[b] --> fedcba987654 1.5s
[a] --> 00 0.0s
[b] STEP 2/2: RUN ev\x1bil
[b] --> executed: the step before it was executed
` + "\x1b[1mraw\x1b[0m no end\n" + `Warning: Containerfile:7: careful\nnow
Error: Containerfile:3: RUN ev\x1bil: exit status 3
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestPlainOneStageHasNoPrefix(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newPlain(Options{Out: &out})
	s := &define.Step{ID: 1, Stage: "0", N: 1, Of: 1, Text: "RUN x"}
	p.Event(define.Event{Kind: define.EventPlan, Of: 1})
	p.Event(define.Event{Kind: define.EventStepStart, Step: s})
	p.Event(define.Event{Kind: define.EventImage, Names: []string{"localhost/x:latest"}})
	want := "STEP 1/1: RUN x\nSuccessfully tagged localhost/x:latest\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestQuietReportsFailures(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	q := New(ModeQuiet, Options{Out: &out})
	for _, e := range twoStages() {
		if e.Kind != define.EventExplain {
			q.Event(e)
		}
	}
	if out.Len() > 0 {
		t.Errorf("printed %q", out.String())
	}
	q.Fail(Failure{File: "Containerfile", Line: 3, Instruction: "RUN x", Text: "exit\nstatus 3"})
	want := "Containerfile:3: RUN x\n  | raw no end\nError: exit\\nstatus 3\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	j := New(ModeJSON, Options{Out: &out})
	s := step(1, "a", 1, "ADD https://user:token@h/x /")
	for _, e := range []define.Event{
		{Kind: define.EventStepOutput, Step: s, Data: []byte("text\n"), Stream: 1},
		{Kind: define.EventStepOutput, Step: s, Data: []byte{0xff, '\n'}, Stream: 2},
		{Kind: define.EventStepDone, Step: s, Err: errors.New("no")},
	} {
		j.Event(e)
	}
	j.Fail(Failure{Text: "it failed", Code: 7})
	var kinds []string
	for l := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		kinds = append(kinds, fmt.Sprintf("%v %v %v %v %v", m["kind"], m["data"], m["dataBase64"], m["error"], m["exitCode"]))
	}
	want := "step-output text\n <nil> <nil> <nil>|step-output <nil> /wo= <nil> <nil>|" +
		"step-done <nil> <nil> no <nil>|error <nil> <nil> <nil> 7"
	if got := strings.Join(kinds, "|"); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if strings.Contains(out.String(), "token") {
		t.Error("a URL's credentials were printed")
	}
}

// screen is a terminal of few abilities: enough for what Terminal writes.
type screen struct {
	mu      sync.Mutex
	columns int
	lines   []string
	row     int
	col     int
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(p)
	for len(text) > 0 {
		var n int
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexFunc(text[2:], func(r rune) bool { return r >= '@' && r <= '~' })
			s.control(text[2:2+end], text[2+end])
			n = end + 3
		case text[0] == '\n':
			s.row, s.col, n = s.row+1, 0, 1 // ONLCR
		case text[0] == '\r':
			s.col, n = 0, 1
		default:
			n = strings.IndexAny(text, "\x1b\r\n")
			if n < 0 {
				n = len(text)
			}
			for _, r := range text[:n] {
				s.put(r)
			}
		}
		text = text[n:]
	}
	return len(p), nil
}

func (s *screen) line() *string {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	return &s.lines[s.row]
}

func (s *screen) put(r rune) {
	if s.col == s.columns {
		s.row, s.col = s.row+1, 0
	}
	l := []rune(*s.line())
	for len(l) <= s.col {
		l = append(l, ' ')
	}
	l[s.col] = r
	*s.line() = string(l)
	s.col++
}

func (s *screen) control(args string, final byte) {
	n := 1
	_, _ = fmt.Sscanf(args, "%d", &n)
	switch final {
	case 'A':
		s.row -= n
	case 'K':
		*s.line() = string([]rune(*s.line())[:min(s.col, len([]rune(*s.line())))])
	case 'J':
		s.control("", 'K')
		s.lines = s.lines[:s.row+1]
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimRight(strings.Join(s.lines, "\n"), "\n ")
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	s := &screen{columns: 40}
	term := newTerminal(Options{Out: s, Size: func() (int, int) { return s.columns, 12 }})
	events := twoStages()
	for i, e := range events {
		term.Event(e)
		if i == 6 { // both steps run
			term.draw(true)
			if got := s.text(); !strings.Contains(got, "= [a 1/2] FROM scratch AS a cached\nbuilding ") ||
				!strings.Contains(got, "> [b 1/2] RUN make 0.") || !strings.Contains(got, "  | two") {
				t.Errorf("live region:\n%s", got)
			}
		}
		term.draw(true)
	}
	term.Fail(Failure{File: "Containerfile", Line: 3, Instruction: "RUN x", Text: "it failed"})
	want := `= [a 1/2] FROM scratch AS a cached
+ [b 1/2] RUN make 1.5s
+ [a 2/2] RUN other 0.0s
! Containerfile:7: careful\nnow
x [b 2/2] RUN ev\x1bil 0.0s
    executed: the step before it was exe
cuted
Containerfile:3: RUN x
  | raw no end
Error: it failed`
	if got := s.text(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestTerminalStaysInItsRows(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{3, 4, 8, 30} {
		term := newTerminal(Options{Out: &screen{columns: 200}, Unicode: true, Size: func() (int, int) { return 30, rows }})
		for i := range 12 {
			s := step(i+1, "a", i+1, "RUN 漢字"+strings.Repeat("x", 100))
			term.Event(define.Event{Kind: define.EventStepStart, Step: s, Time: time.Now()})
			term.Event(define.Event{Kind: define.EventStepOutput, Step: s, Data: bytes.Repeat([]byte("漢字漢字漢字漢字漢字漢字漢字\n"), 9)})
		}
		for range 12 {
			term.Event(define.Event{Kind: define.EventTransfer, Object: "blob", Text: "pull", Current: 5, Total: 10})
		}
		lines := term.region(time.Now(), 29, rows-1)
		if len(lines) > rows-1 {
			t.Errorf("%d lines in %d rows", len(lines), rows)
		}
		for _, l := range lines {
			if w := width(truncate(l, 29)); w > 29 {
				t.Errorf("a line of %d columns: %q", w, l)
			}
		}
		term.Close()
		term.Close() // twice is no harm
		term.Event(define.Event{Kind: define.EventNote, Text: "late"})
	}
}

func TestTruncateKeepsColours(t *testing.T) {
	t.Parallel()
	got := truncate("\x1b[1mabcdef\x1b[0m", 4)
	if got != "\x1b[1mabc~\x1b[0m" {
		t.Errorf("got %q", got)
	}
	if w := width(got); w != 4 {
		t.Errorf("width %d", w)
	}
}

func TestParseMode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Mode{"": ModeAuto, "plain": ModePlain, "none": ModeQuiet, "rawjson": ModeJSON, "tty": ModeTTY} {
		if got, err := ParseMode(in); got != want || err != nil {
			t.Errorf("ParseMode(%q) = %q, %v", in, got, err)
		}
	}
	if _, err := ParseMode("fancy"); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

// TestSentence: a warning ends with its sentence, and not with the kind of the
// error that it is made of.
func TestSentence(t *testing.T) {
	for text, want := range map[string]string{
		"cache a: cannot be read: not found": "cache a: cannot be read", "a: in use\n": `a: in use\n`, "not found": "not found", "a": "a",
	} {
		if got := sentence(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
