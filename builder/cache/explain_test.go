package cache

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestExplainDifferences(t *testing.T) {
	t.Parallel()
	d := func(s string) string { return digest.FromString(s).String() }
	sh := func(s string) string { return d(s)[:len("sha256:")+12] + "…" }
	run := []string{PartInstruction, "RUN a"}
	with := func(pairs ...string) []string { return append(append([]string(nil), run...), pairs...) }
	tests := []struct {
		name             string
		was, now         []string
		n                int
		part, wasV, nowV string
		text             string
	}{
		{name: "file changed", was: with("file src/main.go", d("1")), now: with("file src/main.go", d("2")),
			part: "file src/main.go", wasV: d("1"), nowV: d("2"), text: "file src/main.go changed"},
		{name: "file added", was: with("file b", d("1")), now: with("file a.txt", d("2"), "file b", d("1")),
			part: "file a.txt", nowV: d("2"), text: "file a.txt was added"},
		{name: "file added at the end", was: with("file b", d("1")), now: with("file b", d("1"), "file c", d("1")),
			part: "file c", nowV: d("1"), text: "file c was added"},
		{name: "file removed", was: with("file a", d("1"), "file b", d("1")), now: with("file b", d("1")),
			part: "file a", wasV: d("1"), text: "file a was removed"},
		{name: "last file removed", was: with("file a", d("1"), "file b", d("1")), now: with("file a", d("1")),
			part: "file b", wasV: d("1"), text: "file b was removed"},
		{name: "file renamed", was: with("file a", d("1")), now: with("file b", d("1")),
			part: "file b", nowV: d("1"), text: "file b was added (and 1 more)"},
		{name: "three files changed", was: with("file a", d("1"), "file b", d("1"), "file c", d("1")), now: with("file a", d("2"), "file b", d("2"), "file c", d("2")),
			part: "file a", wasV: d("1"), nowV: d("2"), text: "file a changed (and 2 more)"},
		{name: "variable", was: with("variable FOO", "x"), now: with("variable FOO", "y"),
			part: "variable FOO", wasV: "x", nowV: "y", text: `variable FOO was "x", is now "y"`},
		{name: "variable to nothing", was: with("variable FOO", "x"), now: with("variable FOO", ""),
			part: "variable FOO", wasV: "x", text: `variable FOO was "x", is now ""`},
		{name: "variable added", was: with(), now: with("variable FOO", "y"),
			part: "variable FOO", nowV: "y", text: `variable FOO was added`},
		{name: "base", n: 2, was: append([]string{PartBase, d("1")}, run...), now: append([]string{PartBase, d("2")}, run...),
			part: PartBase, wasV: d("1"), nowV: d("2"), text: "the parent changed: base image digest " + sh("2") + " was " + sh("1")},
		{name: "base as parent", n: 2, was: append([]string{PartParent, d("1")}, run...), now: append([]string{PartParent, d("2")}, run...),
			part: PartParent, wasV: d("1"), nowV: d("2"), text: "the parent changed: " + sh("2") + " was " + sh("1")},
		{name: "parent", n: 3, was: append([]string{PartParent, d("1")}, run...), now: append([]string{PartParent, d("2")}, run...),
			part: PartParent, wasV: d("1"), nowV: d("2"), text: "the parent changed: sha256:d4735e3a265e… was sha256:6b86b273ff34…"},
		{name: "parent and file", n: 3, was: []string{PartParent, d("1"), "file a", d("1")}, now: []string{PartParent, d("2"), "file a", d("2")},
			part: PartParent, wasV: d("1"), nowV: d("2"), text: "the parent changed: sha256:d4735e3a265e… was sha256:6b86b273ff34…; file a changed"},
		{name: "parent and files", n: 3, was: []string{PartParent, d("1"), "file a", d("1"), "file b", d("1")}, now: []string{PartParent, d("2"), "file a", d("2")},
			part: PartParent, wasV: d("1"), nowV: d("2"), text: "the parent changed: sha256:d4735e3a265e… was sha256:6b86b273ff34…; file a changed (and 1 more)"},
		{name: "instruction", was: []string{PartInstruction, "RUN a"}, now: []string{PartInstruction, "RUN b"},
			part: PartInstruction, wasV: "RUN a", nowV: "RUN b", text: `the instruction was "RUN a", is now "RUN b"`},
		{name: "command", was: []string{PartInstruction, "RUN", PartCommand, "a"}, now: []string{PartInstruction, "RUN", PartCommand, "b"},
			part: PartCommand, wasV: "a", nowV: "b", text: `the command was "a", is now "b"`},
		{name: "order", was: with("mount x", "1", "mount y", "1"), now: with("mount y", "1", "mount x", "1"),
			part: "mount y", wasV: "1", nowV: "1", text: "mount y is at another place in the order"},
		{name: "a name twice", was: with("mount x", "1"), now: with("mount x", "1", "mount x", "1"),
			part: "mount x", nowV: "1", text: "mount x was added"},
		{name: "a name once less", was: with("mount x", "1", "mount x", "1"), now: with("mount x", "1"),
			part: "mount x", wasV: "1", text: "mount x was removed"},
		{name: "terminal codes", was: with("file a\x1b[31m\nb", d("1")), now: with("file a\x1b[31m\nb", d("2")),
			part: "file a\x1b[31m\nb", wasV: d("1"), nowV: d("2"), text: `file "a\x1b[31m\nb" changed`},
		{name: "long value", was: with("variable A", strings.Repeat("é", 1000)), now: with("variable A", "\n"),
			part: "variable A", wasV: strings.Repeat("é", 1000), nowV: "\n", text: `variable A was "` + strings.Repeat("é", maxQuoted) + `"…, is now "\n"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, _, _ := newCache(t)
			s := Slot{Build: "b", Stage: "0", N: tt.n, Instruction: "RUN"}
			save(t, c, s, key(tt.was...), Result{})
			got, err := c.Explain(context.Background(), s, key(tt.now...))
			if err != nil {
				t.Fatal(err)
			}
			if want := (Explanation{tt.part, tt.wasV, tt.nowV, tt.text}); got != want {
				t.Errorf("\n got %+v\nwant %+v", got, want)
			}
			if strings.ContainsAny(got.Text, "\n\x1b") {
				t.Errorf("control characters in %q", got.Text)
			}
		})
	}
}

func text(t *testing.T, c *Cache, s Slot, k *Key) string {
	t.Helper()
	e, err := c.Explain(context.Background(), s, k)
	if err != nil {
		t.Fatal(err)
	}
	return e.Text
}

func TestExplainWithoutNeighbour(t *testing.T) {
	t.Parallel()
	c, ms, _ := newCache(t)
	k := key(PartInstruction, "RUN a")
	if got := text(t, c, step2, k); got != "no earlier build of this step" {
		t.Errorf("empty cache: %q", got)
	}
	save(t, c, step2, k, Result{Layer: layerID("l")})
	if got := text(t, c, step2, k); got != "the cached layer was removed from the store" {
		t.Errorf("layer gone: %q", got)
	}
	ms.add("", layerID("l"))
	if got := text(t, c, step2, k); got != "the cache has this step and was not asked for it" {
		t.Errorf("a hit: %q", got)
	}
	if err := os.Remove(path(c, k)); err != nil {
		t.Fatal(err)
	}
	if got := text(t, c, step2, k); got != "the record of the earlier build was removed from the cache" {
		t.Errorf("record gone: %q", got)
	}
	if got := text(t, c, step2, key(PartInstruction, "RUN b")); got != "no earlier build of this step" {
		t.Errorf("the neighbour's record gone: %q", got)
	}
}

// Which earlier key a key is compared with.
func TestNearest(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	at := func(build string, n int, keyword string) Slot {
		return Slot{Build: build, Stage: "0", N: n, Instruction: keyword}
	}
	first := key(PartParent, "p1", PartInstruction, "RUN a")
	second := key(PartParent, "p2", PartInstruction, "RUN b")
	save(t, c, at("b", 3, "RUN"), first, Result{})
	save(t, c, at("b", 4, "RUN"), second, Result{})

	// The instruction's keyword alone does not make two steps the same.
	third := key(PartParent, "p3", PartInstruction, "RUN", PartCommand, "a")
	save(t, c, at("b", 5, "RUN"), third, Result{})
	save(t, c, at("b", 6, "RUN"), key(PartParent, "p4", PartInstruction, "RUN", PartCommand, "b"), Result{})

	tests := []struct {
		name string
		slot Slot
		key  *Key
		want string
	}{
		{"the same place and text", at("b", 3, "RUN"), key(PartParent, "p9", PartInstruction, "RUN a"), "the parent changed: \"p9\" was \"p1\""},
		{"a line was inserted above", at("b", 4, "RUN"), key(PartParent, "p9", PartInstruction, "RUN a"), "the parent changed: \"p9\" was \"p1\""},
		{"and below", at("b", 5, "RUN"), key(PartParent, "p9", PartInstruction, "RUN b"), "the parent changed: \"p9\" was \"p2\""},
		{"a command, further down", at("b", 6, "RUN"), key(PartParent, "p9", PartInstruction, "RUN", PartCommand, "a"), "the parent changed: \"p9\" was \"p3\""},
		{"another text", at("b", 3, "RUN"), key(PartParent, "p1", PartInstruction, "RUN c"), `the instruction was "RUN a", is now "RUN c"`},
		{"another keyword", at("b", 3, "COPY"), key(PartParent, "p1", PartInstruction, "COPY c"), "no earlier build of this step"},
		{"another build", at("elsewhere", 3, "RUN"), key(PartParent, "p9", PartInstruction, "RUN b"), "the parent changed: \"p9\" was \"p2\" (compared with another build)"},
		{"another build and text", at("elsewhere", 3, "RUN"), key(PartParent, "p9", PartInstruction, "RUN c"), "no earlier build of this step"},
	}
	for _, tt := range tests {
		if got := text(t, c, tt.slot, tt.key); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A step with two keys, one by where its sources lie and one by what they
// hold, is explained by the latter.
func TestExplainTwoKeys(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	s := Slot{Build: "b", N: 3, Instruction: "COPY"}
	quick := func(from string) *Key { return key(PartInstruction, "COPY", PartDestination, "/d", PartFrom, from) }
	content := func(v string) *Key {
		return key(PartInstruction, "COPY", PartDestination, "/d", "sources", "1", PartFile+"a", v)
	}
	save(t, c, s, content("1"), Result{})
	save(t, c, s, quick("l1"), Result{})
	if got, want := text(t, c, s, content("2")), `file a changed`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := text(t, c, s, quick("l2")), `from was "l1", is now "l2"`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Going back to an older state of a context is a hit; the change after that
// is compared with what was seen last.
func TestSeen(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	a, b := key("variable V", "a"), key("variable V", "b")
	save(t, c, step2, a, Result{})
	save(t, c, step2, b, Result{})
	for range 2 {
		if err := c.Seen(context.Background(), step2, a); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := text(t, c, step2, key("variable V", "c")), `variable V was "a", is now "c"`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	base, _ := c.dir()
	if fi, err := os.Stat(buildLogPath(base, step2)); err != nil || fi.Size() != int64(3*slotEntry) {
		t.Errorf("%v, %d bytes: want three entries", err, fi.Size())
	}
}

// A key too long to be kept still explains what was kept of it.
func TestExplainCutKey(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	big := strings.Repeat("x", maxPartsLen/2)
	k := key("variable A", "1", "big 1", big, "big 2", big, "variable B", "1")
	save(t, c, step2, k, Result{})
	if _, ok := lookup(t, c, k); !ok {
		t.Error("no hit")
	}
	if got, want := text(t, c, step2, key("variable A", "2", "big 1", big, "big 2", big)), `variable A was "1", is now "2"`; !strings.HasPrefix(got, want) {
		t.Errorf("%q", got)
	}
	k.Add("variable C", "1")
	if got, want := text(t, c, step2, k), "something after the first 2 parts of the key changed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
