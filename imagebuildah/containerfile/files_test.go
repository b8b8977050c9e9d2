package containerfile

import "testing"

func TestParseFiles(t *testing.T) {
	t.Parallel()
	a := Source{"a", []byte("FROM x AS one\nRUN 1\n")}
	b := Source{"b", []byte("\uFEFF# c\nFROM y\nCOPY --from=one a b\nMAINTAINER me")}
	f, err := ParseFiles([]Source{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if in := f.Stages[1].Instructions[0]; f.Name != "a, b" || in.File != "b" || in.Line != 3 || f.Stages[0].Instructions[0].File != "a" || f.Stages[1].From.Line != 2 {
		t.Errorf("%+v", in)
	}
	if w := f.Warnings[0]; w.File != "b" || w.Line != 4 {
		t.Errorf("%+v", w)
	}
	for want, files := range map[string][]Source{
		"c:2: RNU: unknown instruction; did you mean RUN?": {a, b, {"c", []byte("\nRNU")}},
		"a:1: RNU: unknown instruction; did you mean RUN?": {{"a", []byte("RNU")}, b},
		"b:1: the file is empty; begin with FROM image":    {{"b", nil}},
	} {
		if _, err := ParseFiles(files); err == nil || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
}
