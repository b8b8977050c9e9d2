package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// linesOf are the lines in which a test can use a flag: those of a script,
// the args of a case of the corpus, the body of a Go test.
func linesOf(test string) ([]string, error) {
	kind, rest, _ := strings.Cut(test, "/")
	switch kind {
	case "corpus":
		c, err := os.ReadFile(filepath.Join("corpus", rest, "case"))
		if err != nil {
			return nil, err
		}
		var lines []string
		for line := range strings.SplitSeq(string(c), "\n") {
			if args, ok := strings.CutPrefix(line, "args:"); ok {
				lines = append(lines, "strata build "+args)
			}
		}
		return lines, nil
	case "scripts":
		text, err := os.ReadFile(test + ".txtar")
		return strings.Split(string(text), "\n"), err
	}
	body, err := goTest(test)
	return strings.Split(body, "\n"), err
}

// goTest returns the text of a test that is named go:PACKAGE.TestName.
func goTest(name string) (string, error) {
	pkg, test, _ := strings.Cut(strings.TrimPrefix(name, "go:"), ".")
	files, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
	if err != nil {
		return "", err
	}
	begin := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(test) + `\(`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		if at := begin.FindIndex(text); at != nil {
			body, _, _ := strings.Cut(string(text[at[0]:]), "\n}\n")
			return body, nil
		}
	}
	return "", &os.PathError{Op: "find", Path: name, Err: os.ErrNotExist}
}

// flagWriting matches what writes a flag: --name, or -x when it has that form.
func flagWriting(flag *pflag.Flag, name string) *regexp.Regexp {
	const before, after = `(?:^|[\s'"(])`, `(?:$|[\s='",)])`
	re := before + "--" + regexp.QuoteMeta(name) + after
	if flag != nil && flag.Shorthand != "" {
		re += "|" + `\s-[a-zA-Z]*` + flag.Shorthand + `(?:$|[\s='"/.])`
	}
	return regexp.MustCompile(re)
}

// commandWriting matches a line that runs one of strata's commands; what is
// behind "strata" is its group.
func commandWriting(c *cobra.Command) *regexp.Regexp {
	names := make([]string, 0, 1+len(c.Aliases))
	for _, n := range append([]string{c.Name()}, c.Aliases...) {
		names = append(names, regexp.QuoteMeta(n))
	}
	return regexp.MustCompile(`\bstrata\b((?:\s+-\S+(?:\s+[^-\s]\S*)??)*\s+(?:` + strings.Join(names, "|") + `)(?:\s.*|$))`)
}

// writes reports whether a line runs a command with a flag.
func writes(line string, command, flag *regexp.Regexp) bool {
	m := command.FindStringSubmatch(line)
	return m != nil && flag.MatchString(m[1])
}
