package buildcontext

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/stratabuild/strata/define"
)

func TestExcluded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file string // of patterns, separated by spaces
		in   []string
		out  []string
		// stop are folders that are out and hold nothing that is in.
		stop []string
		// into are folders that are out and may hold something that is in.
		into []string
	}{
		{"*", nil, []string{"a", "a/b"}, []string{"a"}, nil},
		{"a /b ./c/", []string{"d", "x/a"}, []string{"a", "a/x", "b", "c"}, []string{"a"}, nil},
		{"*/temp* */*/temp* temp?", []string{"temp", "a/b/c/temp"}, []string{"a/temporary.txt", "a/b/temp", "tempa"}, nil, nil},
		{"**/*.go", []string{"a.c"}, []string{"a.go", "x/y/a.go"}, nil, nil},
		{"*.md !README.md", []string{"README.md", "a/x.md"}, []string{"a.md"}, nil, nil},
		{"*.md !README*.md README-secret.md", []string{"README.md"}, []string{"README-secret.md"}, nil, nil},
		{"* !src/keep", []string{"src/keep", "src/keep/x"}, []string{"src", "src/x", "other"}, []string{"other"}, []string{"src"}},
		{"* !src/*.c", []string{"src/a.c"}, []string{"src/a.h", "lib/a.c"}, []string{"lib"}, []string{"src"}},
		{"* !**/*.c", []string{"src/a.c", "a.c"}, []string{"src/a.h"}, nil, []string{"src", "lib"}},
		{"node_modules !node_modules/.bin", []string{"node_modules/.bin/x"}, []string{"node_modules/a"}, []string{"node_modules/a"}, []string{"node_modules"}},
		{"# comment", []string{"#", "# comment", "comment"}, nil, nil, nil},
		{"[a-c]x !bx", []string{"bx", "dx"}, []string{"ax", "cx"}, nil, nil},
		{`\*`, []string{"a"}, []string{"*"}, nil, nil},
		{"dir/**", []string{"dir"}, []string{"dir/a", "dir/a/b"}, nil, nil},
		{"**", nil, []string{"a", "a/b"}, nil, nil},
	} {
		lines := strings.Split(c.file, " ")
		if strings.HasPrefix(c.file, "#") {
			lines = []string{c.file}
		}
		i, err := ParseIgnore(".dockerignore", []byte(strings.Join(lines, "\r\n")))
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		ask := func(p string) (bool, bool) {
			excluded, descend, err := i.Excluded(p)
			if err != nil {
				t.Errorf("%s: %s: %v", c.file, p, err)
			}
			return excluded, descend
		}
		for _, p := range c.in {
			if excluded, descend := ask(p); excluded || !descend {
				t.Errorf("%s: %s is out", c.file, p)
			}
		}
		for _, p := range c.out {
			if excluded, _ := ask(p); !excluded {
				t.Errorf("%s: %s is in", c.file, p)
			}
		}
		for _, p := range c.stop {
			if _, descend := ask(p); descend {
				t.Errorf("%s: %s would be walked", c.file, p)
			}
		}
		for _, p := range c.into {
			if excluded, descend := ask(p); !excluded || !descend {
				t.Errorf("%s: %s would not be walked", c.file, p)
			}
		}
	}
}

func TestParseIgnoreErrors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\n[":                         "x:2: bad pattern \"[\"",
		"[a-":                          "x:1: bad pattern",
		"!":                            "x:1: \"!\" alone",
		"a\n\n!  ":                     "x:3: \"!\" alone",
		"a\x00b":                       "x:1: a pattern with a NUL byte",
		"\\":                           "x:1: bad pattern",
		strings.Repeat("a", 1<<20):     "x:1: a pattern of more than",
		strings.Repeat("a\n", 100_000): "x:10001: more than 10000 patterns",
		"ok\n\xff*":                    "x:2: pattern \"\\xff*\" has wildcards",
	} {
		_, err := ParseIgnore("x", []byte(in))
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%.20q: %v; want %s", in, err, want)
		}
	}
	if _, err := ParseIgnore("x", make([]byte, MaxIgnoreFile+1)); err == nil {
		t.Error("a huge file is accepted")
	}
	if i, err := ParseIgnore("x", []byte("\uFEFF#c\n \n\xff\n")); err != nil || i.Empty() {
		t.Errorf("%v", err)
	}
}

// reference walks down to a path as Docker's walker does, carrying what the
// library says about each folder.
func reference(pm *patternmatcher.PatternMatcher, file string) (bool, error) {
	var info patternmatcher.MatchInfo
	var excluded bool
	at := ""
	for _, part := range strings.Split(file, "/") {
		at = path.Join(at, part)
		var err error
		if excluded, info, err = pm.MatchesUsingParentResults(at, info); err != nil {
			return false, err
		}
	}
	return excluded, nil
}

// compare checks Excluded against the library, and that descend never hides
// a path that is in.
func compare(t *testing.T, content, file string) {
	i, err := ParseIgnore("f", []byte(content))
	if err != nil {
		return
	}
	file = strings.TrimPrefix(path.Clean("/"+file), "/")
	if file == "" || strings.ContainsRune(file, 0) {
		return
	}
	got, _, err := i.Excluded(file)
	if err != nil {
		t.Fatalf("%q: %q: %v", content, file, err)
	}
	for dir := path.Dir(file); !got && dir != "."; dir = path.Dir(dir) {
		if excluded, descend, _ := i.Excluded(dir); excluded && !descend {
			t.Fatalf("%q: %q is in, but %q is not walked", content, file, dir)
		}
	}
	patterns, err := ignorefile.ReadAll(strings.NewReader(content))
	if err != nil {
		return
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatalf("%q: the library refuses it: %v", content, err)
	}
	want, err := reference(pm, file)
	if err != nil {
		t.Fatalf("%q: the library fails: %v", content, err)
	}
	if got != want {
		t.Fatalf("%q: %q: excluded %v, the library says %v", content, file, got, want)
	}
}

// Every small combination of patterns and paths agrees with the library.
func TestAgainstLibrary(t *testing.T) {
	t.Parallel()
	patterns := []string{"*", "a", "!a", "a/b", "!a/b", "**/b", "!**/b", "a/*", "!a/*", "a/**", "!a/b/c", "*/b", "!*/b/c", "b?", "[ab]", "!./a"}
	paths := []string{"a", "b", "bb", "a/b", "a/a", "b/b", "a/b/c", "a/b/c/d", "b/a/b"}
	for _, p := range patterns {
		for _, q := range patterns {
			for _, r := range patterns {
				for _, file := range paths {
					compare(t, p+"\n"+q+"\n"+r, file)
				}
			}
		}
	}
}

func TestExcludedConcurrently(t *testing.T) {
	t.Parallel()
	i, err := ParseIgnore("f", []byte("**/x*\n!a/**/xy\n*.log"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 500 {
				if _, _, err := i.Excluded(fmt.Sprintf("a/%d/%d/xy", n%50, g)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzParseIgnore(f *testing.F) {
	for _, s := range []string{"*\n!a", "[", "[a-", "\\", "!", "**/", "a**b/**", "!!a", "./!x", "a\\", "^a$", "\xff*", "[^a]", "]", "/", "//a", "..", "{a}+"} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, content, file string) {
		compare(t, content, file)
	})
}

// 20,000 paths against 40 patterns of the usual kinds.
func BenchmarkExcluded(b *testing.B) {
	var lines []string
	for n := range 10 {
		lines = append(lines, fmt.Sprintf("build%d", n), fmt.Sprintf("**/*.tmp%d", n), fmt.Sprintf("src/*/gen%d", n), fmt.Sprintf("!keep%d/**", n))
	}
	paths := make([]string, 20_000)
	for n := range paths {
		paths[n] = fmt.Sprintf("src/module%d/package%d/file%d.go", n/1000, n/50, n)
	}
	b.ResetTimer()
	for b.Loop() {
		i, err := ParseIgnore("f", []byte(strings.Join(lines, "\n")))
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range paths {
			if _, _, err := i.Excluded(p); err != nil {
				b.Fatal(err)
			}
		}
	}
}
