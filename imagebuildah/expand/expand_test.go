package expand

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

var amd64 = define.Platform{OS: "linux", Architecture: "amd64"}

// words of the table in the Dockerfile reference, and what differs elsewhere.
func TestExpand(t *testing.T) {
	t.Parallel()
	g := NewGlobal(nil, amd64, amd64, "")
	s := g.Stage([]string{"FOO=bar", "EMPTY=", "STR=foobarbaz", "FILE=a/b/c.tar.gz", "P=x*y", "SP=a  b", "Q=it's"})
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"},
		{"$FOO", "bar"}, {"${FOO}", "bar"}, {"${FOO}_x", "bar_x"}, {"$FOO_x", ""},
		{`\$FOO`, "$FOO"}, {`\${FOO}`, "${FOO}"}, {"'$FOO'", "$FOO"}, {`"$FOO"`, "bar"}, {`"\$FOO"`, "$FOO"},
		{"${X:-y}", "y"}, {"${EMPTY:-y}", "y"}, {"${EMPTY-y}", ""}, {"${FOO:-y}", "bar"}, {"${X-y}", "y"},
		{"${X:+y}", ""}, {"${FOO:+y}", "y"}, {"${EMPTY:+y}", ""}, {"${EMPTY+y}", "y"},
		{"${X:-${FOO}}", "bar"}, {"${X:-${Y:-$FOO}}", "bar"},
		{"${STR#f*b}", "arbaz"}, {"${STR##f*b}", "az"}, {"${STR%b*}", "foobar"}, {"${STR%%b*}", "foo"},
		{"${FILE##*/}", "c.tar.gz"}, {"${FILE%.*}", "a/b/c.tar"},
		{"${STR/ba/fo}", "fooforbaz"}, {"${STR//ba/fo}", "fooforfoz"}, {`${FILE//\//-}`, "a-b-c.tar.gz"},
		{"${FOO?no}", "bar"}, {"$$", ""}, {"\xff$FOO\xfe", "\xffbar\xfe"}, {"$", "$"}, {"a$ b", "a$ b"}, {"$1", ""},
		{"$SP", "a  b"}, {"$Q", "it's"}, {`a\ b`, "a b"}, {"C:$FOO", "C:bar"}, {"é$FOO", "ébar"},
		{"<<$FOO", "<<bar"},
	} {
		got, err := s.Expand(c.in)
		if err != nil || got != c.want {
			t.Errorf("Expand(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for in, want := range map[string]string{
		"${X:?give X}": `X: give X in "${X:?give X}"`,
		"${X?}":        `X: is not allowed to be unset in "${X?}"`,
		"${EMPTY:?}":   `EMPTY: is not allowed to be empty in "${EMPTY:?}"`,
		"${FOO":        `a ${ without its } in "${FOO"`,
		"${}":          `syntax error: bad substitution in "${}"`,
		"'x":           `unexpected end of statement while looking for matching single-quote in "'x"`,
		"${FOO:^}":     `unsupported modifier (:^) in substitution in "${FOO:^}"`,
	} {
		_, err := s.Expand(in)
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, define.ErrInvalid) {
			t.Errorf("Expand(%q): error %v; want %q", in, err, want)
		}
	}
}

func parse(t *testing.T, text string) *containerfile.File {
	t.Helper()
	f, err := containerfile.Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// walk executes the instructions of a stage as an executor does.
func walk(t *testing.T, s *Stage, list []containerfile.Instruction) []instructions.Command {
	t.Helper()
	var out []instructions.Command
	for _, in := range list {
		cmd := in.Fresh()
		if err := s.ExpandCommand(cmd); err != nil {
			t.Fatalf("%s: %v", in.Text, err)
		}
		switch c := cmd.(type) {
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				if _, err := s.Declare(a); err != nil {
					t.Fatal(err)
				}
			}
		case *instructions.EnvCommand:
			for _, kv := range c.Env {
				s.SetEnv(kv.Key, kv.Value)
			}
		}
		out = append(out, cmd)
	}
	return out
}

func TestStage(t *testing.T) {
	t.Parallel()
	f := parse(t, `ARG GLOBAL=g
ARG DERIVED=${GLOBAL}x
ARG GIVEN=default
FROM img:$DERIVED
RUN before
ARG GLOBAL
ARG GIVEN=other
ARG LOCAL=${GLOBAL}-l NONE
ARG TARGETARCH
ARG TARGETVARIANT
ARG HOMEDIR=/x
ENV HOMEDIR=/y A=1
ENV A=2 B=$A
ARG A=3
EXPOSE $LOCAL 80/tcp
`)
	g := NewGlobal(map[string]string{"GIVEN": "cli", "http_proxy": "p:1", "NEVER": "x", "BUILDKIT_INLINE_CACHE": "1"},
		define.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, amd64, "")
	g.SetEscape(f.Escape)
	for _, in := range f.Args {
		if err := g.DeclareAll(in); err != nil {
			t.Fatal(err)
		}
	}
	if base, err := g.Expand(f.Stages[0].Base); err != nil || base != "img:gx" {
		t.Fatalf("base %q, %v", base, err)
	}
	if v, _ := g.Expand("$TARGETPLATFORM $BUILDPLATFORM $TARGETSTAGE"); v != "linux/arm/v7 linux/amd64 default" {
		t.Errorf("platforms: %q", v)
	}
	s := g.Stage([]string{"PATH=/bin"})
	if got := s.RunEnv(); !reflect.DeepEqual(got, []string{"HTTP_PROXY=p:1", "http_proxy=p:1"}) {
		t.Errorf("RunEnv before ARG: %q", got)
	}
	if v, err := s.Expand("[$GLOBAL]"); v != "[]" || err != nil || !reflect.DeepEqual(s.Undefined(), []string{"GLOBAL"}) {
		t.Errorf("undeclared: %q, %v", v, err)
	}
	cmds := walk(t, s, f.Stages[0].Instructions)
	want := []Arg{{"GLOBAL", "g"}, {"GIVEN", "cli"}, {"LOCAL", "g-l"}, {"TARGETARCH", "arm"}, {"TARGETVARIANT", "v7"}}
	if got := s.UsedArgs(); !reflect.DeepEqual(got, want) {
		t.Errorf("UsedArgs: %q; want %q", got, want)
	}
	for name, want := range map[string]string{"HOMEDIR": "/y", "A": "2", "B": "1"} {
		if got, _ := s.Lookup(name); got != want {
			t.Errorf("%s = %q; want %q", name, got, want)
		}
	}
	expose := cmds[len(cmds)-1].(*instructions.ExposeCommand)
	if strings.Join(expose.Ports, " ") != "g-l 80/tcp" && strings.Join(expose.Ports, " ") != "80/tcp g-l" {
		t.Errorf("EXPOSE: %q", expose.Ports)
	}
	if got := g.Unused(); !reflect.DeepEqual(got, []string{"NEVER"}) {
		t.Errorf("Unused: %q", got)
	}
	if c := s.Child(); !reflect.DeepEqual(c.UsedArgs(), want) {
		t.Errorf("Child: %q", c.UsedArgs())
	}
}

// A proxy counts for the key once it is declared, and then comes once.
func TestProxyDeclared(t *testing.T) {
	t.Parallel()
	g := NewGlobal(map[string]string{"HTTP_PROXY": "p"}, amd64, amd64, "")
	s := g.Stage([]string{"no_proxy=n"})
	if _, err := s.Declare(instructions.KeyValuePairOptional{Key: "HTTP_PROXY"}); err != nil {
		t.Fatal(err)
	}
	if got := s.RunEnv(); !reflect.DeepEqual(got, []string{"HTTP_PROXY=p", "http_proxy=p"}) {
		t.Errorf("RunEnv: %q", got)
	}
	if got := s.UsedArgs(); !reflect.DeepEqual(got, []Arg{{"HTTP_PROXY", "p"}}) {
		t.Errorf("UsedArgs: %q", got)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	f := parse(t, "# escape=`\nFROM x\nENV V=1 W=`$V\nEXPOSE $PORTS\nCOPY --chown=$U \"$V\" $V.b /$V/\nCOPY <<A <<'B' /d/\n$V \"q\" \\$V\nA\n$V\nB\nRUN --mount=type=cache,target=/$V echo $V\nCMD echo $V\n")
	s := NewGlobal(nil, amd64, amd64, "").Stage([]string{"PORTS=80 81/udp", "U=0:0", "V=old"})
	s.global.SetEscape(f.Escape)
	cmds := walk(t, s, f.Stages[0].Instructions)
	if e := cmds[0].(*instructions.EnvCommand); e.Env[1].Value != "$V" {
		t.Errorf("escaped: %q", e.Env[1].Value)
	}
	if e := cmds[1].(*instructions.ExposeCommand); !reflect.DeepEqual(e.Ports, []string{"80", "81/udp"}) {
		t.Errorf("EXPOSE: %q", e.Ports)
	}
	if c := cmds[2].(*instructions.CopyCommand); c.Chown != "0:0" || !reflect.DeepEqual(c.SourcePaths, []string{"1", "1.b"}) || c.DestPath != "/1/" {
		t.Errorf("COPY: %+v", c)
	}
	if c := cmds[3].(*instructions.CopyCommand); c.SourceContents[0].Data != "1 \"q\" $V\n" || c.SourceContents[1].Data != "$V\n" {
		t.Errorf("heredocs: %+v", c.SourceContents)
	}
	r := cmds[4].(*instructions.RunCommand)
	if m := instructions.GetMounts(r); m[0].Target != "/1" || r.CmdLine[0] != "echo $V" {
		t.Errorf("RUN: %+v %q", m[0], r.CmdLine)
	}
	if c := cmds[5].(*instructions.CmdCommand); c.CmdLine[0] != "echo $V" {
		t.Errorf("CMD: %q", c.CmdLine)
	}
	// The file itself is as it was parsed.
	if c := f.Stages[0].Instructions[2].Command.(*instructions.CopyCommand); c.Chown != "$U" {
		t.Errorf("the file was changed: %+v", c)
	}
}

// What grows without end is refused, in bounded memory and time.
func TestBombs(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", MaxResult)
	s := NewGlobal(nil, amd64, amd64, "").Stage([]string{"BIG=" + big, "K=" + big[:1024], "W=" + strings.Repeat("*a", 5000)})
	for name, word := range map[string]string{
		"many":    strings.Repeat("$BIG", 1000),
		"two":     "$BIG$BIG",
		"replace": "${BIG//x/$BIG}",
		"literal": "${BIG//x/" + strings.Repeat("y", 1000) + "}",
		"nested":  "${K//x/${K//x/${K//x/${K//x/$K}}}}",
		"hidden":  `${K//x/${K//x/\}${K//x/\}${K//x/$K}}}}`,
		"wild":    "${BIG##" + strings.Repeat("*a", 5000) + "}",
		"wilder":  "${BIG##$W}",
		"deep":    strings.Repeat("${A:-", 1_000_000) + strings.Repeat("}", 1_000_000),
	} {
		if v, err := s.Expand(word); err == nil {
			t.Errorf("%s: expanded to %d bytes", name, len(v))
		}
	}
	for _, word := range []string{"$BIG", "${K//x/yy}", "${BIG//x/y}", "${K//x/$A}"} {
		if _, err := s.Expand(word); err != nil {
			t.Errorf("%s: %v", word, err)
		}
	}
	// An ARG that doubles itself.
	a := "x"
	for range 100 {
		kv, err := s.Declare(instructions.KeyValuePairOptional{Key: "D", Value: &a})
		if err != nil {
			return
		}
		_ = kv
		a = "$D$D"
		s.args["D"] = *kv.Value
	}
	t.Error("doubling was never refused")
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$A", "${A:-b}", "${A//x/${B}}", `\$A`, "'a'\"b\"", "${A#*/}", "<<E", "${A:?m}", "\xff$A", "${A/#/}", "${A%\\}"} {
		f.Add(s, "value")
	}
	f.Fuzz(func(t *testing.T, word, value string) {
		g := NewGlobal(map[string]string{"A": value}, amd64, amd64, "")
		s := g.Stage([]string{"B=" + value})
		_, _ = s.Declare(instructions.KeyValuePairOptional{Key: "A"})
		got, err := s.Expand(word)
		if err == nil && len(got) > MaxResult+len(word)*3 {
			t.Fatalf("%d bytes", len(got))
		}
		_ = s.ExpandCommand(&instructions.ExposeCommand{Ports: []string{word}})
		_, _ = g.Expand(word)
	})
}
