package cpp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

// tree is what may be included, by path.
type tree map[string]string

func (t tree) read(path string) ([]byte, error) {
	if content, ok := t[path]; ok {
		return []byte(content), nil
	}
	return nil, fs.ErrNotExist
}

func TestProcess(t *testing.T) {
	t.Parallel()
	files := tree{
		"inc": "LABEL a=1\n\n# comment\n#define INC yes\n", "sub/inc": "#include \"deep\"\n#include \"inc2\"\n", "sub/deep": "DEEP __LINE__ __FILE__ __INCLUDE_LEVEL__\n",
		"inc2": "ROOT", "once": "#pragma once\nONCE\n", "twice": "TWICE\n", "empty": "#define E e\n\\\n",
		"i/h": "H\n", "q/h": "Q\n", "beside/b": "B\n", "first": "#define FIRST 1\n", "shout": "LOUD\n",
	}
	for name, c := range map[string]struct {
		in, want string
		flags    []string
	}{
		"nothing":              {"", "", nil},
		"no newline":           {"FROM x", "FROM x\n", nil},
		"as it is":             {"# syntax=docker/dockerfile:1\nFROM x # y\n  #z\n\n\nRUN <<E\n#!/bin/sh\n# it's A /* glob\n#\n## if\n#1\n#ifx\n#If\nE\n", "# syntax=docker/dockerfile:1\nFROM x # y\n  #z\n\n\nRUN <<E\n#!/bin/sh\n# it's A /* glob\n#\n## if\n#1\n#ifx\n#If\nE\n", []string{"-DA=b"}},
		"continued":            {"RUN a \\\n# comment\n  b \\ \n \"c \\\n A\" A\n", "RUN a \\\n# comment\n  b \\\n \"c \\\n A\" z\n", []string{"-DA=z"}},
		"comment ends in \\":   {"# a \\\nRUN A\n", "# a \\\nRUN z\n", []string{"-DA=z"}},
		"ends in \\":           {"RUN a \\", "RUN a \\\n", nil},
		"lines stay":           {"#define X \\\n y\n#if 1\nX __LINE__\n#endif\n/* \n */ z __LINE__\n", "\n\n\ny 4\n\n z 7\n", nil},
		"call over lines":      {"#define f(a) <a>\nf(1 \\\n2\n3)\n__LINE__\n", "\n<1 2 3>\n\n\n5\n", nil},
		"include":              {"A\n#include \"inc\"\nINC __LINE__\n", "A\nLABEL a=1\n\n# comment\nyes 3\n", nil},
		"include, in step":     {"#include \"sub/deep\"\n#include \"empty\"\nE __LINE__\n", "DEEP 1 \"sub/deep\" 1\n\\\n\ne 3\n", nil},
		"in step again":        {"#include \"inc\"\n#if 0\nx\n#endif\n__LINE__\n", "LABEL a=1\n\n# comment\n\n5\n", nil},
		"nested":               {"#include \"sub/inc\"\n", "DEEP 1 \"sub/deep\" 2\nROOT\n", nil},
		"by macro":             {"#define F \"inc2\"\n#define G(x) <x>\n#include F\n#include G(h)\n", "ROOT\nH\n", []string{"-Ii"}},
		"once":                 {"#include \"once\"\n#include \"once\"\n#import \"twice\"\n#import \"twice\"\n", "ONCE\nTWICE\n", nil},
		"directories":          {"#include <h>\n#include \"h\"\n#include \"b\"\n", "H\nQ\nB\n", []string{"-I", "i/../i", "-iquote", "q"}},
		"first":                {"X FIRST __LINE__\n", "X 1 1\n", []string{"-include", "first"}},
		"first with text":      {"X\n", "LOUD\nX\n", []string{"-includeshout", "-DLOUD=LOUD"}},
		"has include":          {"#if __has_include(\"inc\") && !__has_include(\"none\") && !__has_include(<inc>)\nx\n#endif\n#if defined(__has_include)\n#endif\n", "\nx\n", nil},
		"pragma":               {"#pragma \\\n GCC x\n#line 7\n#  ident \"x\"\n__LINE__\n", "#pragma \\\n GCC x\n\n#  ident \"x\"\n5\n", nil},
		"variadic":             {"#define V(...) <__VA_ARGS__>\n#define W(a, b...) a:b;\n#define X(a,...) \"a\" \"__VA_ARGS__\"\nV(1, 2) V() W(1) W(1, 2,3) X(x, y,z)\n", "\n\n\n<1, 2> <> 1:; 1: 2,3; \"x\" \" y,z\"\n", nil},
		"within itself":        {"#define A A b\n#define B C\n#define C B c\n#define f(x) f(x, x)\nA B C f(f(1))\n", "\n\n\n\nA b B c C c f(f(1, 1), f(1, 1))\n", nil},
		"painted":              {"#define A A b\n#define f(x) [x] \"x\"\nf(A) f(f(A))\n", "\n\n[A b] \"A\" [[A b] \"A\"] \"f(A)\"\n", nil},
		"painted to include":   {"#define inc2 \"inc2\"\n#define F inc2\n#include F\n", "ROOT\n", nil},
		"call that is none":    {"#define f(x) x\n#define L (\nf L 1)\nf f\nf(f)(2) f (f\n)\n", "\n\nf ( 1)\nf f\nf(2) f \n", nil},
		"parts of calls":       {"#define f(x) <x>\n#define g(x) x\ng(f)(1) g(f \"(\") g(\"f(\")\n", "\n\n<1> f \"(\" \"f(\"\n", nil},
		"quotes in macros":     {"#define Q \"a\n#define R it's\nQ Q\" R R\n", "\n\n\"a Q\" it's R\n", nil},
		"flags in order":       {"A B\n", "A 2\n", []string{"-DA=1", "-UA", "-DB=1", "-DB=2"}},
		"flag that ends in \\": {"A B\n", "x\\ 1\n", []string{`-DA=x\`, "-DB"}},
		"wide":                 {"é ÿ \xff 世A界 A\n", "é ÿ \xff 世z界 z\n", []string{"-DA=z"}},
		"skipped":              {"#if 0\n#include \"/etc/passwd\"\n#error x\n#define A\n#nothing\n#include_next \"x\"\n#warning\n#endif\nA", "\n\n\n\n\n\n\n\nA\n", nil},
	} {
		flags, err := ParseFlags(c.flags)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, _, err := Process(t.Context(), Options{Name: "f.in", Dir: "beside", Flags: flags, Read: files.read}, []byte(c.in))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, c.want)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	files := tree{"bad": "x\n#error in here\n", "self": "#include \"self\"\n", "open": "#if 1\n", "close": "#endif\n", "two": "#include \"two\"\n#include \"two\"\n"}
	forbidden := errors.New("no permission")
	read := func(path string) ([]byte, error) {
		if path == "secret" {
			return nil, forbidden
		}
		return files.read(path)
	}
	for _, c := range []struct {
		in, want string
		kind     error
	}{
		{"x\n#error it's \"bad\"\n", "f.in:2: #error it's \"bad\"", define.ErrInvalid},
		{"x\n\n#include \"bad\"\n", "bad:2: #error in here", define.ErrInvalid},
		{"x\n#include \"none\"\n", "f.in:2: #include of none, which is not in the build context; it was looked for as none, beside/none", define.ErrNotFound},
		{"#include <bad>\n", "f.in:1: #include <bad>: no directory", define.ErrNotFound},
		{"#include \"../../bad\"\n", "f.in:1: #include of ../../bad, which is outside", define.ErrEscape},
		{"#include \"/bad\"\n", "f.in:1: #include of /bad, which is outside", define.ErrEscape},
		{"#include \"secret\"\n", "f.in:1: #include: no permission", forbidden},
		{"#include \"self\"\n", "self:1: files include files more than 64 deep", define.ErrInvalid},
		{"#include \"open\"\n#endif\n", "open:1: this #if has no #endif", define.ErrInvalid},
		{"#if 1\n#include \"close\"\n", "close:1: #endif without an #if", define.ErrInvalid},
		{"#include_next \"bad\"\n", "f.in:1: #include_next", define.ErrUnsupported},
		{"# include the file\n", "f.in:1: #include the file: want", define.ErrInvalid},
		{"# if you want\n", "f.in:1: #if: an operator is missing before want; a comment that begins with if", define.ErrInvalid},
		{"a\n\nRUN rm /lists/*\n", "f.in:3: the comment that /* begins has no */", define.ErrInvalid},
		{"#if 1\n#if 0\n#endif\n", "f.in:1: this #if has no #endif", define.ErrInvalid},
		{"RUN a \\\n#ifdef X\n b\n#endif\n", "f.in:2: #ifdef behind a line that ends in \\", define.ErrInvalid},
		{"\n#define f(x) x\n\nRUN f(a\nb\n", "f.in:4: the call of the macro f has no )", define.ErrInvalid},
		{"#define f(x) x\nf(1,\n2)\n", "f.in:2: the macro f has 1 arguments, and is called with 2", define.ErrInvalid},
		{"x\n__DATE__\n", "f.in:2: __DATE__ is not there", define.ErrInvalid},
		{"x\n\x00\n", "f.in:2: holds the byte 0x00", define.ErrInvalid},
		{"# \x01\n", "f.in:1: holds the byte 0x01", define.ErrInvalid},
		{"#if " + strings.Repeat("(", 1000) + "\n#endif\n", "f.in:1: #if: it is nested more than", define.ErrInvalid},
		{"#if " + strings.Repeat("!", 1<<20) + "\n#endif\n", "f.in:1: #if: it is nested more than", define.ErrInvalid},
		{"#define f(x) x\n" + strings.Repeat("f(", 10000) + strings.Repeat(")", 10000) + "\n", "f.in:2: macros are called within arguments more than", define.ErrInvalid},
		{"#include \"two\"\n", "two:1: files include files more than 64 deep", define.ErrInvalid},
	} {
		_, _, err := Process(t.Context(), Options{Name: "f.in", Dir: "beside", Read: read}, []byte(c.in))
		if !errors.Is(err, c.kind) || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 700 {
			t.Errorf("%.200q: %v, want %s", c.in, err, c.want)
		}
	}
}

// TestBombs: what grows without end is refused before it is large.
func TestBombs(t *testing.T) {
	t.Parallel()
	powers := func(body string) string {
		var b strings.Builder
		b.WriteString("#define A0 " + body + "\n")
		for i := range 12 {
			fmt.Fprintf(&b, "#define A%d %s\n", i+1, strings.Repeat(fmt.Sprintf("A%d ", i), 10))
		}
		return b.String()
	}
	chain := func(body string) string {
		var b strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&b, "#define A%d %s A%d\n", i, body, i+1)
		}
		return b.String() + "A0\n"
	}
	for name, c := range map[string]struct{ in, want string }{
		"text":        {powers("x") + "A12\n", "f.in:14: macros and included files make more than"},
		"nothing":     {powers("") + "A12\n", "f.in:14: macros and included files make more than"},
		"in #if":      {powers("+") + "#if A12\n#endif\n", "f.in:14: macros and included files make more than"},
		"arguments":   {"#define f(x) x x x x x x x x\n" + strings.Repeat("f(", 20) + "y" + strings.Repeat(")", 20) + "\n", "f.in:2: macros"},
		"chain":       {chain("x"), "f.in:5001: the macro A2000 stands for macros more than 2000 deep"},
		"chain calls": {"#define f(x)\n" + chain("f(1)"), "f.in:5002: the macro f stands for macros more than 2000 deep"},
		"open calls":  {"#define f(x) x\n#define g(x) x\ng(" + strings.Repeat("f \"(\" ", 1000) + ")\n", ""},
		"output":      {"#define A " + strings.Repeat("x", 1<<10) + "\n" + strings.Repeat(strings.Repeat("y", 4<<20)+" A\n", 20), "f.in:17: larger than 64 MiB"},
		"includes":    {strings.Repeat("#include \"x\"\n", 20000), "f.in:16385: macros and included"},
	} {
		_, _, err := Process(t.Context(), Options{Name: "f.in", Read: tree{"x": ""}.read}, []byte(c.in))
		if c.want == "" && err == nil {
			continue
		}
		if c.want == "" || !errors.Is(err, define.ErrInvalid) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	_, got, err := Process(t.Context(), Options{Name: "f.in"}, []byte("#define A 1\n#define A 1\n#define A 2\n#warning it's \xff odd\n#define __LINE__ 3\n"))
	want := []string{"f.in:3: A is defined anew; write #undef before", "f.in:4: #warning it's ? odd", "f.in:5: __LINE__ is defined anew; write #undef before"}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\n%q, want\n%q", err, got, want)
	}
}

// TestCanceled: a build that is given up does not wait for the file.
func TestCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Process(ctx, Options{Name: "f.in"}, []byte("x\n")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestParseFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags []string
		kind  error // nil: accepted
	}{
		{[]string{"-DA", "-D", "A=b", "-U", "A", "-UB", "-Ix", "-I", ".", "-iquote", "a/../b", "-iquotea", "-include", "x", "-includex", "-include x"}, nil},
		{[]string{"-undef", "-traditional", "-traditional-cpp", "-E", "-P", "-nostdinc"}, nil},
		{[]string{"-DF(x, y)=x y", "-DA=", "-DA=b c \"d\" #"}, nil},
		{[]string{""}, define.ErrInvalid},
		{[]string{"D"}, define.ErrInvalid},
		{[]string{"-D"}, define.ErrInvalid},
		{[]string{"-DA", "-I"}, define.ErrInvalid},
		{[]string{"-D1"}, define.ErrInvalid},
		{[]string{"-DA(=x"}, define.ErrInvalid},
		{[]string{"-Ddefined"}, define.ErrInvalid},
		{[]string{"-U-"}, define.ErrInvalid},
		{[]string{"-DX\n#include \"x\""}, define.ErrInvalid},
		{[]string{"-DX=\x00"}, define.ErrInvalid},
		{[]string{"-DX=/*"}, define.ErrInvalid},
		{[]string{"-MD"}, define.ErrInvalid},
		{[]string{"-o", "x"}, define.ErrInvalid},
		{[]string{"-ofile"}, define.ErrInvalid},
		{[]string{"-fplugin=x"}, define.ErrInvalid},
		{[]string{"-isystem", "x"}, define.ErrInvalid},
		{[]string{"-I/etc"}, define.ErrEscape},
		{[]string{"-I", "../x"}, define.ErrEscape},
		{[]string{"-I.."}, define.ErrEscape},
		{[]string{"-iquote", "a/../../b"}, define.ErrEscape},
		{[]string{"-include", "/etc/passwd"}, define.ErrEscape},
	} {
		_, err := ParseFlags(c.flags)
		if c.kind == nil && err != nil || c.kind != nil && (!errors.Is(err, c.kind) || !strings.HasPrefix(err.Error(), "--cpp-flag ") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %v", c.flags, err)
		}
	}
}

// FuzzProcess reads any file: an error is one line that begins with a place, a
// file without directives and comments stays as it is, and no byte that is
// ours gets out.
func FuzzProcess(f *testing.F) {
	for _, c := range comparable {
		f.Add(c.in)
	}
	f.Add("#include \"self\"\n")
	f.Add("#define f(x) x \"x\" f\nf(f)(1)\n#if f(1) + defined f\n#endif\n")
	f.Add("#define V(a, ...) a __VA_ARGS__ a/**/a\nV(V(1,\n2), 3)\n")
	f.Fuzz(func(t *testing.T, in string) {
		files := tree{"self": in, "x": "#define X x\nX\n"}
		got, _, err := Process(t.Context(), Options{Name: "f.in", Read: files.read}, []byte(in))
		if err != nil {
			place, _, _ := strings.Cut(err.Error(), ": ")
			if name, line, ok := strings.Cut(place, ":"); !ok || name != "f.in" && name != "self" && name != "x" || strings.Trim(line, "0123456789") != "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if strings.ContainsAny(string(got), "\x00\x01\x02") {
			t.Fatalf("%q gives %q", in, got)
		}
		if strings.Contains(in, "#") || strings.Contains(in, "/*") || strings.Contains(in, "__") || strings.Contains(in, "\\") || in == "" {
			return
		}
		if want := strings.TrimSuffix(in, "\n") + "\n"; string(got) != want {
			t.Fatalf("%q gives %q", in, got)
		}
	})
}
