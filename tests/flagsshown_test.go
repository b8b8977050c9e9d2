package tests

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/cmd/cli"
)

// unshown are flags that no script uses, with the reason.
var unshown = map[string]string{}

// TestFlagsAreShown looks at the commands that work on containers and move
// images: each of their flags is in a line of a script that runs the command.
// TestOptions does more for build.
func TestFlagsAreShown(t *testing.T) {
	t.Parallel()
	lines, err := scriptLines()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"from", "run", "copy", "add", "config", "commit", "push", "pull"} {
		c, _, err := cli.NewCommand().Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		command := commandWriting(c)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			title := fmt.Sprintf("%s --%s", name, f.Name)
			if f.Name == "help" {
				return
			}
			flag, shown := flagWriting(f, f.Name), false
			for _, line := range lines {
				if shown = writes(line, command, flag); shown {
					break
				}
			}
			switch _, excepted := unshown[title]; {
			case !shown && !excepted:
				t.Errorf("%s: no script of tests/scripts has it; write one that shows what it does", title)
			case shown && excepted:
				t.Errorf("%s: a script has it now; take it out of unshown", title)
			}
		})
	}
}

// scriptLines are the lines of all scripts, without comments.
func scriptLines() ([]string, error) {
	var lines []string
	err := filepath.WalkDir("scripts", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".txtar") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.Contains(line, "strata") && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		return nil
	})
	return lines, err
}
