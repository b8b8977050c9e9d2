package buildcontext

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

func needCPP(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("cpp"); err != nil {
		t.Skip("needs cpp")
	}
}

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
	needCPP(t)
	for name, c := range map[string]struct {
		file, want string
		flags      []string
	}{
		"macros": {"#define BASE busybox\nFROM BASE\n", "\nFROM busybox\n", nil},
		"lines and comments stay": {"# syntax=x\n# it's a comment\nFROM y\n#ifdef NO\nLABEL no=1\n#else\nLABEL yes=1\n#endif\nRUN <<E\n#!/bin/sh\nE\n",
			"# syntax=x\n# it's a comment\nFROM y\n\n\n\nLABEL yes=1\n\nRUN <<E\n#!/bin/sh\nE\n", nil},
		"flags":   {"FROM BASE\nLABEL v=V\n", "FROM alpine\nLABEL v=1\n", []string{"-DBASE=alpine", "-DV", "-UX"}},
		"include": {"FROM y\n#include \"sub/inc\"\nLAST\n", "FROM y\n\nLABEL a=1\nLABEL deep=1\nLAST\n", nil},
	} {
		got, err := preprocessed(t, c.flags, map[string]string{"Containerfile.in": c.file, "sub/inc": "LABEL a=1\n#include \"deep\"\n", "sub/deep": "LABEL deep=1\n"})
		if err != nil || got != c.want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, c.want)
		}
	}
}

func TestPreprocessRefuses(t *testing.T) {
	t.Parallel()
	needCPP(t)
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
		"missing":      {"#include \"nothing\"\n", "", nil, define.ErrInvalid},
		"error":        {"#error stop here\n", "", nil, define.ErrInvalid},
		"unterminated": {"#if 1\nFROM x\n", "", nil, define.ErrInvalid},
		"flag":         {"FROM x\n", "", []string{"-include/etc/passwd"}, define.ErrInvalid},
		"bomb":         {"#define A x x x x x x x x x x\n#define B A A A A A A A A A A\n#define C B B B B B B B B B B\n#define D C C C C C C C C C C\n#define E D D D D D D D D D D\n#define F E E E E E E E E E E\n#define G F F F F F F F F F F\nG G G G\n", "", nil, define.ErrInvalid},
	} {
		files := map[string]string{"Containerfile.in": "FROM y\n" + c.file}
		if c.inc != "" {
			files["inc"] = c.inc
		}
		got, err := preprocessed(t, c.flags, files)
		if !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "token") {
			t.Errorf("%s: %.200q, %v", name, got, err)
		}
	}
}

// A context that is read by descriptor is included from, wherever its path
// leads by then.
func TestPreprocessOther(t *testing.T) {
	t.Parallel()
	if got, err := preprocessed(t, nil, map[string]string{"Containerfile.in": "FROM y\n", "x": ""}); err == nil && got != "FROM y\n" {
		t.Errorf("%q", got)
	}
	for _, flag := range []string{"", "-D", "-I/etc", "-DX\n", "D"} {
		if CheckCPPFlag(flag) == nil {
			t.Errorf("%q is accepted", flag)
		}
	}
	if got := makeWords(" a b\\ c \\\n d$$e\\\\\n"); !reflect.DeepEqual(got, []string{"a", "b c", "d$e\\"}) {
		t.Errorf("%q", got)
	}
}
