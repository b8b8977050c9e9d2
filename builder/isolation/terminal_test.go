package isolation

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestTerminal: what Options ask for is in the Spec and in its document, and
// Check takes no Spec in which the two differ or whose terminal nobody reads.
func TestTerminal(t *testing.T) {
	t.Parallel()
	read := func(*os.File) {}
	box := func(rows, columns uint) *specs.Box { return &specs.Box{Height: rows, Width: columns} }
	for name, c := range map[string]struct {
		asked *Terminal
		size  *specs.Box // the document's
		// change is what somebody does to the Spec; refused is Check's error.
		change  func(*Spec)
		refused string
	}{
		"none":                 {},
		"no size":              {asked: &Terminal{Console: read}},
		"size":                 {asked: &Terminal{Size: TerminalSize{33, 77}, Console: read}, size: box(33, 77)},
		"nobody reads":         {asked: &Terminal{}, refused: "nobody reads"},
		"a document without":   {asked: &Terminal{Console: read}, change: func(s *Spec) { s.Process.Terminal = false }, refused: "disagree"},
		"only in the document": {change: func(s *Spec) { s.Process.Terminal = true }, refused: "disagree"},
		"a document of another size": {asked: &Terminal{Size: TerminalSize{33, 77}, Console: read}, size: box(33, 77),
			change: func(s *Spec) { s.Process.ConsoleSize = box(1, 1) }, refused: "disagree"},
		"a document with a size": {asked: &Terminal{Console: read}, change: func(s *Spec) { s.Process.ConsoleSize = box(1, 1) }, refused: "disagree"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewSpec(Options{Args: []string{"/bin/true"}, Terminal: c.asked})
			if err != nil {
				t.Fatal(err)
			}
			p := s.Process
			if s.Terminal != c.asked || p.Terminal != (c.asked != nil) || (p.ConsoleSize == nil) != (c.size == nil) || c.size != nil && *p.ConsoleSize != *c.size {
				t.Errorf("terminal %+v, document %v %+v", s.Terminal, p.Terminal, p.ConsoleSize)
			}
			if c.change != nil {
				c.change(s)
			}
			err = (&Step{Spec: s, Root: os.Stdin}).Check()
			if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("%v, want %q", err, c.refused)
			}
		})
	}
}
