package cpp

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAgainstGNU compares with cpp -traditional, where that is installed: the
// same text for what both take, an error of both for what is wrong. Lines that
// end in \ are joined and empty lines dropped for the comparison.
func TestAgainstGNU(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("cpp")
	if err != nil {
		t.Skip("needs cpp")
	}
	for _, c := range comparable {
		args := append([]string{"-E", "-P", "-traditional", "-undef", "-nostdinc"}, c.flags...)
		cmd := exec.CommandContext(t.Context(), program, append(args, "-")...)
		cmd.Env = []string{"LC_ALL=C"}
		cmd.Stdin = strings.NewReader(c.in)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		theirs := cmd.Run()
		flags, err := ParseFlags(c.flags)
		if err != nil {
			t.Errorf("%q: %v", c.flags, err)
			continue
		}
		got, _, err := Process(t.Context(), Options{Name: "<stdin>", Flags: flags}, []byte(c.in))
		if (err != nil) != (theirs != nil) {
			t.Errorf("%q: we say %v, cpp %v %q", c.in, err, theirs, stdout.String())
			continue
		}
		if want := flat(stdout.String()); err == nil && flat(string(got)) != want {
			t.Errorf("%q %q gives\n%q, and by cpp\n%q", c.in, c.flags, flat(string(got)), want)
		}
	}
}

// TestIncludeAgainstGNU compares what is included, and which of several files.
func TestIncludeAgainstGNU(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("cpp")
	if err != nil {
		t.Skip("needs cpp")
	}
	dir := t.TempDir()
	files := map[string]string{
		"a": "root a\n", "sub/a": "sub a\n", "sub/b": "#include \"a\"\n#include \"c\"\n", "c": "root c __INCLUDE_LEVEL__\n",
		"i/a": "i a\n", "i/d": "i d", "q/d": "q d\n", "q/a": "q a\n", "once": "#pragma once\nonce\n", "open": "#if 1\n", "close": "#endif\n",
		"macros": "#define A 1\n#undef C\n", "dir/a/x": "x\n",
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) ([]byte, error) {
		if content, ok := files[path]; ok {
			return []byte(content), nil
		}
		return nil, fs.ErrNotExist
	}
	for _, c := range []comparison{
		{"#include \"a\"\n#include \"sub/b\"\nx\n", nil},
		{"#include <a>\n#include <d>\n#include \"d\"\n", []string{"-Ii", "-iquote", "q"}},
		{"#include \"a\"\n#include <a>\n", []string{"-I", "i", "-Isub", "-iquoteq"}},
		{"#include \"once\"\n#include \"once\"\n#import \"a\"\n#import \"a\"\n#include \"a\"\n", nil},
		{"#include \"open\"\n#endif\n", nil},
		{"#if 1\n#include \"close\"\n", nil},
		{"A B C\n", []string{"-DC", "-include", "macros"}},
		{"#include \"macros\" // x\nA\n#include \"macros\"\n", nil},
		{"#define F <a>\n#define G \"a\"\n#include F\n#include G /* */\n", []string{"-Ii"}},
		{"#include \"\"\n", nil}, {"#include \"a\n", nil}, {"#include <a\n", []string{"-Ii"}},
		{"#include \"dir\"\n", nil}, {"#include \"a/x\"\n", nil}, {"#include \"x\"\n", []string{"-iquotedir", "-iquotedir/a"}},
		{"#if __has_include(\"a\") && !__has_include(\"z\") && __has_include(<d>) && defined __has_include\nx\n#endif\n", []string{"-Ii"}},
	} {
		args := append([]string{"-E", "-P", "-traditional", "-undef", "-nostdinc", "-iquote", "."}, c.flags...)
		cmd := exec.CommandContext(t.Context(), program, append(args, "-")...)
		cmd.Dir, cmd.Env = dir, []string{"LC_ALL=C"}
		cmd.Stdin = strings.NewReader(c.in)
		theirs, failed := cmd.Output()
		flags, err := ParseFlags(c.flags)
		if err != nil {
			t.Errorf("%q: %v", c.flags, err)
			continue
		}
		got, _, err := Process(t.Context(), Options{Name: "<stdin>", Flags: flags, Read: read}, []byte(c.in))
		if (err != nil) != (failed != nil) || err == nil && flat(string(got)) != flat(string(theirs)) {
			t.Errorf("%q %q: %v\n%q, and by cpp %v\n%q", c.in, c.flags, err, flat(string(got)), failed, flat(string(theirs)))
		}
	}
}

func flat(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\\\r\n", ""), "\\\n", "")
	var out []string
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) != "" {
			out = append(out, strings.TrimRight(l, " \t\r\n"))
		}
	}
	return strings.Join(out, "\n")
}

type comparison struct {
	in    string
	flags []string
}

var comparable = []comparison{
	{"FROM x\nRUN a && \\\n  b\n", nil},
	{"  # foo\n  #define A b\nA\n", nil},
	// Quotes.
	{"#define A b\nRUN echo \"A\" A 'A' it's A\nA 'A\nA\n", nil},
	{"RUN echo 'multi\nline A' A\nRUN echo \"multi\nline A\" A\n", []string{"-DA=z"}},
	{"RUN echo \\\" A \\\n\"A\" A\\\nA A\n", []string{"-DA=z"}},
	{"x \"A \\\" A\" y \\A \\\\A \\\\\" A\n", []string{"-DA=b"}},
	{"\"a\\\\\" A \"b\\\\\\\" A\" A\n", []string{"-DA=b"}},
	// Comments.
	{"a/**/b // A http://x A\n#define A b\n// A\n", nil},
	{"it's /* A */ A\n\"x /* A */\" A /* it's */ A\n", []string{"-DA=z"}},
	{"x /* \"A */ A \" /* b */ A\n", []string{"-DA=z"}},
	{"x /* c\n d */ y\nz\n", nil},
	{"/* c */#define A b\nA\n/* c\n */ #define A b\nA\n", nil},
	{"A/**/A A/* x */b b/**/A 1/**/A A/**/1\n", []string{"-DA=z"}},
	{"#/**/define/**/A/**/b c\n#/**/if/**/defined/**/A\nA\n#/**/endif/**/\n#define F(a)a/**/b/**/a\nF(x/**/y)\n", nil},
	{"COPY src/**/x /y\nRUN cat a/*b*/c\n", nil},
	{"RUN rm /lists/*\nLABEL z\n", nil},
	{"#if 0\n rm /lists/*\n#endif\nx\n", nil},
	{"#if 0\n it's /* x\n#endif\n*/\n#endif\nx\n", nil},
	{"x \\/* A */ A\n", []string{"-DA=z"}},
	// Shell text.
	{"RUN x=${y##*/}; echo $((1<<2)) ${#z} $# $@ `date` a#b\n", nil},
	{"RUN a A.b A_b -A- ${A} $A A$ A1 \u00e9 A @A A@ %A~A^A\n", []string{"-DA=z"}},
	{"1A .5A 1.A 1e+A\n", []string{"-DA=z"}},
	// Macros.
	{"#define A \\\n x \\\n y\nA\nRUN a \\\n A \\\n b\n", nil},
	{"#define S(x) \"x\" #x x##y\nS(1)\nS(q r)\nS\n(x)\nS\n", nil},
	{"#define f(x) [x]\n#define g f\ng(1) f(f(2)) f(g)(3) g (4)\n", nil},
	{"#define f(a) a\nf ( 1 ) f(  a   b  ) f(/* c */d)\n#define E\n[E] [ E ]\n#define T   sp  aced   \n[T]\n", nil},
	{"#define cat(a,b) a/**/b\ncat(x,y) cat( x , y )\n", nil},
	{"#define F(a,b) a-b\nF((1,2),\"a,b\")\nF(,)\n", nil},
	{"#define F() z\nF()\nF\n", nil},
	{"#define F(a) a\nF(x\ny)\nnext __LINE__\n", nil},
	{"#define f(a) <a>\nf(\"(\") f(\")\") f((,)) f(')') f(\\))\n", nil},
	{"#define f(x) x\nf(a\"b\n\") c\n", nil},
	{"#define x y\n#define f(a) a x \"a\" \"x\" 'a'\nf(x) f(\"x\") f('x')\n", nil},
	{"#define s(a) \"a\" 'a'\ns(\"x\\n\") s('\\\\') s( b ) s(\"'\")\n", nil},
	{"#define A foo /* comment\nmore */ bar\nA __LINE__\n#define B foo // bar\nB\n", nil},
	{"#define A it's\nA A\n A\n#define B it's /* c */ C\nB\n", nil},
	{"#define OBJ (a) a\nOBJ\n#define F(a)a\nF(1)F(2)\n", nil},
	{"# define Q 1\n#  ifdef Q\nyes\n# endif\n#/* c */define R 2\nQ R\n", nil},
	{"#define A(x) [x]\nA (1) A /* c */ (2) A\\\n(3)\n", nil},
	{"#define A /* c */\n#define B(x) /**/x/**/\n[A][B(1)]\n#define C  a  /* */  b  \n[C]\n", nil},
	{"#define A(x,y) y x\nA( 1 , 2 )|\n", nil},
	{"#define A 1\n#define A 2\nA\n#undef A x\nA\n", nil},
	{"#define AB 1\nA\\\nB A\\\n B\n", nil},
	{"A B C\n", []string{"-DA", "-DB=2", "-DC(x)=x", "-UB"}},
	{"A B C(7) D E\n", []string{"-DC(x)=x<x>", "-DA=", "-DD=a=b", "-D", "E=f", "-undef"}},
	{"__LINE__ __FILE__ __INCLUDE_LEVEL__ __COUNTER__ __COUNTER__\n", nil},
	{"#ifdef __FILE__\nx\n#endif\n#undef __FILE__\n__FILE__\n", nil},
	{"#define f(a) a\nf(\nA\n#define A 1\nA\n)\n", nil},
	{"A\r\n#define A b\r\nA c\r\n#ifdef A\r\nx\r\n#endif\r\n", nil},
	// What is wrong for both.
	{"#define F(a,b) a-b\nF(1)\n", nil},
	{"#define F(a,b) a-b\nF(1,2,3)\n", nil},
	{"#define F() z\nF(1)\n", nil},
	{"#define f(a,b) <a>\nf(1\n", nil},
	{"#define\n", nil},
	{"#define 1\n", nil},
	{"#define A(\n", nil},
	{"#define A(b c) d\n", nil},
	{"#define A(b,b) d\n", nil},
	{"#define A(b,) d\n", nil},
	{"#define defined\n", nil},
	{"#undef\n", nil},
	{"#undef 1\n", nil},
	{"#error it's bad\n", nil},
	{"#include\n", nil},
	{"#include foo\n", nil},
	{"#include \"no/such/file\"\n", nil},
	{"#include <no/such/file>\n", nil},
	{"#else\n", nil},
	{"#endif\n", nil},
	{"#elifdef X\n", nil},
	{"#if 1\n#else\n#else\n#endif\n", nil},
	{"#if 1\n#else\n#elif 1\n#endif\n", nil},
	{"#if 1\n", nil},
	{"#ifdef\n#endif\n", nil},
	{"#ifdef 1\n#endif\n", nil},
	// Conditions.
	{"#if 1 + (2 << 3) > 4 && defined(X) || !defined X\nyes\n#elif 1\nno\n#endif foo\n", nil},
	{"#if 0\na\n#elif 1\nb\n#elif 1/0\nc\n#else\nd\n#endif\n", nil},
	{"#if 0\n#if 1\na\n#else\nb\n#endif\n#elif nonsense here\n#elif 1\nc\n#endif\n", nil},
	{"#if 0\n#if 1/0 ( \n#error x\n#include \"none\"\n#elif\n#endif\n#else\ny\n#endif\n", nil},
	{"#if 0\n#elifdef X\n#elifndef X\ny\n#endif\n", nil},
	{"#if FOO == BAR\nx\n#endif\n", nil},
	{"#if 'a' == 97 && '\\n' == 10\nx\n#endif\n#if 0x10 == 16 && 010 == 8 && 1u\ny\n#endif\n#if 1 ? 2 : 0\nz\n#endif\n", nil},
	{"#if A == 1 /* c\n */ && 1\ny __LINE__\n#endif\n#if 1 \\\n == 1\nz __LINE__\n#endif", []string{"-DA"}},
	{"#define E defined(A)\n#if E\nx\n#else\ny\n#endif\n#define A\n#if E\nz\n#endif\n", nil},
	{"#define V(a,b) (a*100+b)\n#if V(2,5) >= 205\nx\n#endif\n", nil},
	{"#if -1 > 0u\ny\n#endif\n#if 9223372036854775807 + 1 < 0\nz\n#endif\n#if -8 >> 1 == -4 && -7 / 2 == -3 && -7 % 2 == -1\nw\n#endif\n", nil},
	{"#if 1 || 1/0\nok\n#endif\n#if 0 && 1/0\n#else\nok\n#endif\n#if 1 ? 1 : 1/0\nok\n#endif\n#if 1,2\nq\n#endif\n", nil},
	{"#if (1|2) == 3 && (3&2) == 2 && (3^1) == 2 && ~0 == -1 && !0 && +1 && 7-2-1 == 4 && 1<2 == 1\nx\n#endif\n", nil},
	{"#if 1 << 2 + 1 == 8 && (1 ? 0 : 1 ? 2 : 3) == 0 && 1LL == 1ull && 0b11 == 3\nx\n#endif\n", nil},
	{"#if\n#endif\n", nil}, {"#if 1/0\n#endif\n", nil}, {"#if A(1)\n#endif\n", nil}, {"#if \"a\" == \"a\"\n#endif\n", nil},
	{"#if 1 2\n#endif\n", nil}, {"#if (1\n#endif\n", nil}, {"#if 1 ||\n#endif\n", nil}, {"#if @\n#endif\n", nil},
	{"#if a=1\n#endif\n", nil}, {"#if 1.5\n#endif\n", nil}, {"#if defined\n#endif\n", nil}, {"#if \"\n#endif\n", nil},
	{"#if 1 ? 2\n#endif\n", nil}, {"#if 08\n#endif\n", nil}, {"#if 1)\n#endif\n", nil}, {"#if 1x\n#endif\n", nil}, {"#if 1 % 0\n#endif\n", nil},
}
