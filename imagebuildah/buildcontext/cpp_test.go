package buildcontext

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// preprocessed is a context with the files, whose build file goes through cpp.
func preprocessed(t *testing.T, flags []string, files map[string]string) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "context")
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(t.Context(), Options{Location: dir, Files: []string{filepath.Join(dir, "Containerfile.in")}, CPPFlags: flags})
	if err != nil {
		return "", err
	}
	defer c.Close()
	return string(c.Containerfile), nil
}

func TestPreprocess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, want string
		flags      []string
	}{
		"macros": {"#define BASE busybox\nFROM BASE\n", "\nFROM busybox\n", nil},
		"lines and comments stay": {"# syntax=x\n# it's a comment\nFROM y\n#ifdef NO\nLABEL no=1\n#else\nLABEL yes=1\n#endif\nRUN <<E\n#!/bin/sh\nE\n",
			"# syntax=x\n# it's a comment\nFROM y\n\n\n\nLABEL yes=1\n\nRUN <<E\n#!/bin/sh\nE\n", nil},
		"flags":   {"FROM BASE\nLABEL v=V\n", "FROM alpine\nLABEL v=1\n", []string{"-DBASE=alpine", "-DV", "-UX"}},
		"include": {"FROM y\n#include \"sub/inc\"\nLAST\n", "FROM y\nLABEL a=1\nLABEL deep=1\nLAST\n", nil},
	} {
		got, err := preprocessed(t, c.flags, map[string]string{"Containerfile.in": c.file, "sub/inc": "LABEL a=1\n#include \"deep\"\n", "sub/deep": "LABEL deep=1\n"})
		if err != nil || got != c.want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, c.want)
		}
	}
}

func TestPreprocessRefuses(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("LABEL secret=token\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, inc string
		flags     []string
		want      error
	}{
		"absolute":     {"#include \"" + outside + "\"\n", "", nil, define.ErrEscape},
		"split":        {"#\\\ninc\\\nlude \"" + outside + "\"\n", "", nil, define.ErrEscape},
		"by macro":     {"#define F \"" + outside + "\"\n#include F\n", "", nil, define.ErrEscape},
		"dots":         {"#include \"../../../../../../../../etc/passwd\"\n", "", nil, define.ErrEscape},
		"link":         {"#include \"inc\"\n", "-> " + outside, nil, define.ErrEscape},
		"missing":      {"#include \"nothing\"\n", "", nil, define.ErrNotFound},
		"error":        {"#error stop here\n", "", nil, define.ErrInvalid},
		"unterminated": {"#if 1\nFROM x\n", "", nil, define.ErrInvalid},
		"flag":         {"FROM x\n", "", []string{"-include/etc/passwd"}, define.ErrEscape},
		"directory":    {"#include \"d\"\n", "", nil, define.ErrNotFound},
		"below a file": {"#include \"d/x/y\"\n", "", nil, define.ErrNotFound},
		"itself":       {"#include \"inc\"\n", "#include \"inc\"\n", nil, define.ErrInvalid},
		"flag outside": {"FROM x\n", "", []string{"-I../x"}, define.ErrEscape},
		"bomb":         {"#define A x x x x x x x x x x\n#define B A A A A A A A A A A\n#define C B B B B B B B B B B\n#define D C C C C C C C C C C\n#define E D D D D D D D D D D\n#define F E E E E E E E E E E\n#define G F F F F F F F F F F\nG G G G\n", "", nil, define.ErrInvalid},
	} {
		files := map[string]string{"Containerfile.in": "FROM y\n" + c.file, "d/x": ""}
		if c.inc != "" {
			files["inc"] = c.inc
		}
		got, err := preprocessed(t, c.flags, files)
		if !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "token") {
			t.Errorf("%s: %.200q, %v", name, got, err)
		}
	}
}

// A FIFO is refused, not waited for.
func TestPreprocessFIFO(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.in"), []byte("FROM y\n#include \"pipe\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Location: dir, Files: []string{filepath.Join(dir, "a.in")}})
	if err == nil || !strings.Contains(err.Error(), "a.in:2: ") || !strings.Contains(err.Error(), "FIFO") {
		t.Error(err)
	}
}

// What a build file includes is looked for in the context's root, then beside
// the file if that lies in the context.
func TestPreprocessBeside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{
		"ctx/both": "root", "ctx/sub/both": "beside", "ctx/sub/inc": "inc", "ctx/inc/x.h": "h", "out/own": "own",
		"ctx/sub/a.in": "#include \"both\"\n#include \"inc\"\n#include <x.h>\n#warning look\n", "out/b.in": "#include \"own\"\n", "out/c.in": "#include \"both\"\n",
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"ctx/sub/a.in": "root\ninc\nh\n", "sub/a.in": "root\ninc\nh\n", "out/b.in": "", "out/c.in": "root\n"} {
		file := filepath.Join(dir, name)
		if name == "sub/a.in" {
			file = name
		}
		c, err := Open(t.Context(), Options{Location: filepath.Join(dir, "ctx"), Files: []string{file}, CPPFlags: []string{"-Iinc"}})
		if want == "" {
			if !errors.Is(err, define.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(c.Containerfile); got != want {
			t.Errorf("%s: %q", name, got)
		}
		if strings.HasSuffix(name, "a.in") && (len(c.Warnings) != 1 || !strings.HasSuffix(c.Warnings[0], "a.in:4: #warning look")) {
			t.Errorf("%s: warnings %q", name, c.Warnings)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
