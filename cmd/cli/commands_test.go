package cli

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCommandNames(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		made := c.make(newApp(Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
		if names := append([]string{made.Name()}, made.Aliases...); !slices.Equal(names, c.names) {
			t.Errorf("%q: the command is called %q", c.names, names)
		}
	}
}

func TestCommandsFor(t *testing.T) {
	t.Parallel()
	all := len(commands())
	for _, c := range []struct {
		args string
		want string // own names; "" is all
	}{
		{"", ""},
		{"--help", ""},
		{"--version", ""},
		{"nosuch", ""},
		{"help build", ""},
		{"__complete build --f", ""},
		{"version", "version"},
		{"--root /x bud .", "build"},
		{"manifest add a b", "manifest add"},
		{"rm --all build", "build rm"},
	} {
		got := commandsFor(strings.Fields(c.args))
		if c.want == "" {
			if len(got) != all {
				t.Errorf("%q: %d commands, want all", c.args, len(got))
			}
			continue
		}
		var names []string
		for _, g := range got {
			names = append(names, g.names[0])
		}
		slices.Sort(names)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("%q: %q, want %q", c.args, names, want)
		}
	}
}

// TestCommandsAlone: what a command says of itself does not depend on how many
// others were made.
func TestCommandsAlone(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		name := c.names[0]
		var help [2]strings.Builder
		for i, list := range [][]command{commands(), commandsFor([]string{name})} {
			root := newRoot(newApp(Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}), list)
			root.SetOut(&help[i])
			root.SetErr(io.Discard)
			root.SetArgs([]string{name, "--help"})
			if err := root.Execute(); err != nil {
				t.Fatalf("%s --help: %v", name, err)
			}
		}
		if help[0].String() != help[1].String() || help[0].Len() == 0 {
			t.Errorf("%s --help differs:\n%s\n%s", name, help[0].String(), help[1].String())
		}
	}
}
