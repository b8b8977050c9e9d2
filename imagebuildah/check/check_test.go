package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
)

// folder makes a context of files, "name=content" each.
func folder(t *testing.T, files ...string) Options {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Options{Context: buildcontext.Options{Location: dir}}
}

func findings(t *testing.T, o Options) []string {
	t.Helper()
	r, err := Lint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, w := range r.Warnings {
		list = append(list, fmt.Sprintf("%d %s", w.Location.line(), w.Rule))
		if w.Description == "" || w.Detail == "" || w.URL == "" {
			t.Errorf("incomplete: %+v", w)
		}
	}
	if r.Error != nil {
		list = append(list, r.Error.Message)
	}
	return list
}

// Every rule of BuildKit's linter with a file that violates it and one that
// does not; rules about base images are a build's.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, bad, good string
		files           []string
	}{
		{"StageNameCasing", "FROM a AS Up", "FROM a AS up", nil},
		{"FromAsCasing", "FROM a as up", "from a as up", nil},
		{"NoEmptyContinuation", "FROM a\nRUN a \\\n\n b", "FROM a\nRUN a \\\n # c\n b", nil},
		{"ConsistentInstructionCasing", "FROM a\nRun x", "from a\nrun x", nil},
		{"DuplicateStageName", "FROM a AS x\nFROM b AS x", "FROM a AS x\nFROM b AS y", nil},
		{"ReservedStageName", "FROM a AS scratch", "FROM a AS scratchy", nil},
		{"JSONArgsRecommended", "FROM a\nCMD x", "FROM a\nSHELL [\"/bin/sh\",\"-c\"]\nCMD x", nil},
		{"JSONArgsRecommended", "FROM a\nENTRYPOINT x", "FROM a\nENTRYPOINT [\"x\"]", nil},
		{"MaintainerDeprecated", "FROM a\nMAINTAINER x", "FROM a\nLABEL x=y", nil},
		{"UndefinedArgInFrom", "FROM a:1$V", "ARG V=1\nFROM a:1$V", nil},
		{"UndefinedArgInFrom", "FROM --platform=$P a AS x", "FROM --platform=$BUILDPLATFORM a AS x", nil},
		{"WorkdirRelativePath", "FROM a\nWORKDIR x", "FROM a\nWORKDIR /x\nWORKDIR y", nil},
		{"WorkdirRelativePath", "FROM a AS b\nFROM b\nWORKDIR x", "FROM a AS b\nWORKDIR /\nFROM b\nWORKDIR x", nil},
		{"UndefinedVar", "FROM scratch\nCOPY $X /", "FROM scratch\nARG X\nCOPY $X /", nil},
		{"UndefinedVar", "ARG X=1\nFROM a\nCOPY $X /", "FROM a\nCOPY $FROM_BASE /", nil},
		{"UndefinedVar", "FROM a\nENV VERSION=1\nCOPY $VERSOIN /", "FROM a\nENV VERSION=1\nCOPY $VERSION /", nil},
		{"UndefinedVar", "FROM a AS b\nENV X=1\nFROM a\nCOPY $X /", "FROM a AS b\nENV X=1\nFROM b\nCOPY $X /", nil},
		{"UndefinedVar", "FROM scratch\nCOPY <<E /\n$X\nE", "FROM scratch\nCOPY <<'E' /\n$X\nE", nil},
		{"UndefinedVar", "FROM scratch\nARG A=$B", "FROM scratch\nRUN echo $B\nENV A=$PATH", nil},
		{"MultipleInstructionsDisallowed", "FROM a\nCMD [\"x\"]\nCMD [\"y\"]", "FROM a AS x\nCMD [\"x\"]\nFROM a\nCMD [\"y\"]", nil},
		{"LegacyKeyValueFormat", "FROM a\nENV a b", "FROM a\nENV a=b", nil},
		{"RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM a", "FROM --platform=${TARGETOS}/arm64 a", nil},
		{"SecretsUsedInArgOrEnv", "FROM a\nARG MY_API_KEY", "FROM a\nARG KEY_FILE\nENV PUBLIC_KEY=x MONKEY=y", nil},
		{"InvalidDefaultArgInFrom", "ARG T\nFROM a:$T", "ARG T=1\nFROM a:${T}-x", nil},
		{"InvalidDefaultArgInFrom", "ARG I\nFROM ${I}:1", "ARG I\nFROM ${I:-a}", nil},
		{"InvalidDefaultArgInFrom", "ARG I=Upper\nFROM $I", "ARG R=reg.example:5000/\nARG I=${R}a/b\nFROM $I@sha256:ab", nil},
		{"FromPlatformFlagConstDisallowed", "FROM --platform=linux/arm64 a", "FROM --platform=linux/arm64 a AS b-arm64", nil},
		{"CopyIgnoredFile", "FROM a\nCOPY no.txt /", "FROM a\nCOPY yes.txt /", []string{".dockerignore=no*"}},
		{"CopyIgnoredFile", "FROM a\nADD . /", "FROM a\nADD https://example.invalid/x /", []string{".dockerignore=**"}},
		{"InvalidDefinitionDescription", "# check=experimental=all\n\n# text\nFROM a AS b", "# check=experimental=all\n\n# b text\nFROM a AS b", nil},
		{"ExposeProtoCasing", "FROM a\nEXPOSE 80/TCP", "FROM a\nEXPOSE 80/tcp", nil},
		{"ExposeInvalidFormat", "FROM a\nEXPOSE 80:80", "FROM a\nEXPOSE 80-81", nil},
	} {
		bad := findings(t, folder(t, append(c.files, "Containerfile="+c.bad+"\n")...))
		if len(bad) == 0 || !strings.HasSuffix(bad[len(bad)-1], " "+c.rule) {
			t.Errorf("%q: %q; want %s", c.bad, bad, c.rule)
		}
		if good := findings(t, folder(t, append(c.files, "Containerfile="+c.good+"\n")...)); len(good) != 0 {
			t.Errorf("%q: %q", c.good, good)
		}
		skipped := "# check=skip=" + c.rule + "\n" + c.bad
		if rest, ok := strings.CutPrefix(c.bad, "# check="); ok { // experimental rules are not skipped but not asked for
			_, skipped, _ = strings.Cut(rest, "\n")
		}
		if good := findings(t, folder(t, append(c.files, "Containerfile="+skipped+"\n")...)); strings.Contains(strings.Join(good, " "), c.rule) {
			t.Errorf("%q: %q", skipped, good)
		}
	}
}

func TestSkips(t *testing.T) {
	t.Parallel()
	o := folder(t, "Containerfile=FROM scratch AS a\n# check=skip=UndefinedVar\nCOPY $X /\nCOPY $X /\nFROM a\nMAINTAINER x\n")
	for _, c := range []struct {
		target, check, want string
	}{
		{"", "", "[4 UndefinedVar 6 MaintainerDeprecated]"},
		{"a", "", "[4 UndefinedVar]"},
		{"", "skip=all", "[]"},
		{"", "skip=UndefinedVar", "[6 MaintainerDeprecated]"},
		{"b", "", "[6 MaintainerDeprecated Containerfile: no stage b; did you mean a?]"},
		{"", "skip", `[Containerfile: check=skip: invalid check option "skip"; want skip=rule,..., error=true or experimental=rule,...]`},
	} {
		o.Target, o.BuildArgs = c.target, map[string]string{"BUILDKIT_DOCKERFILE_CHECK": c.check}
		if got := fmt.Sprint(findings(t, o)); got != c.want {
			t.Errorf("target %q, check %q: %s; want %s", c.target, c.check, got, c.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"FROM scratch\nRUNN x":                       "Containerfile:2: RUNN: unknown instruction; did you mean RUN?",
		"FROM scratch\nARG X\nCOPY ${X:?give} /":     `Containerfile:3: COPY: X: give in "${X:?give}"`,
		"ARG X=${Y:?no}\nFROM scratch":               `Containerfile:1: ARG: Y: no in "${Y:?no}"`,
		"ARG X\nFROM $X":                             "Containerfile:2: FROM: the base $X is empty after expansion; declare its argument before the first FROM, with a default",
		"FROM scratch\nCOPY --from=nobase a b\nUSER": "Containerfile:3: USER: wants exactly one argument",
	} {
		r, err := Lint(t.Context(), folder(t, "Containerfile="+file))
		if err != nil || r.Err() == nil || !r.Failed() {
			t.Fatalf("%q: %v, %v", file, r, err)
		}
		if r.Error.Message != want || r.Err().Error() != want || !errors.Is(r.Err(), define.ErrInvalid) {
			t.Errorf("%q: %v; want %s", file, r.Err(), want)
		}
		if line := r.Error.Location.line(); !strings.HasPrefix(want, fmt.Sprintf("Containerfile:%d:", line)) {
			t.Errorf("%q: line %d", file, line)
		}
	}
	// What a base image may define is no mistake.
	if r, err := Lint(t.Context(), folder(t, "Containerfile=FROM a\nCOPY ${X:?give} /")); err != nil || r.Failed() {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := Lint(t.Context(), folder(t)); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
}

func TestOutline(t *testing.T) {
	t.Parallel()
	o := folder(t, `Containerfile=# A is global
ARG A=1
ARG B=$A-2
ARG UNUSED=x
FROM img:$B AS base
ARG C=${B:-z}
RUN --mount=type=secret,id=s1,required=true --mount=type=secret,target=/run/s2 --mount=type=ssh x
FROM other AS tools
ARG TOOLS=1
FROM scratch AS alone
ARG ALONE
# final is the last
FROM base AS final
ARG TARGETARCH
ARG A
COPY --from=tools /a /
`)
	o.BuildArgs = map[string]string{"TOOLS": "given"}
	doc, err := Find(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range doc.Args {
		args = append(args, fmt.Sprintf("%s=%s@%d(%s)", a.Name, a.Value, a.Location.line(), a.Description))
	}
	if got := strings.Join(args, " "); got != "A=1@2(is global) B=1-2@3() C=z@6() TOOLS=given@9()" {
		t.Error(got)
	}
	if doc.Name != "final" || doc.Description != "is the last" || len(doc.Secrets) != 2 || doc.Secrets[0] != (Needed{"s1", true, doc.Secrets[0].Location}) ||
		doc.Secrets[1].Name != "s2" || len(doc.SSH) != 1 || doc.SSH[0].Name != "default" {
		t.Errorf("%+v", doc)
	}
	var text bytes.Buffer
	if err := doc.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := "TARGET:      final\nDESCRIPTION: is the last\n\nBUILD ARG   VALUE   DESCRIPTION\nA           1       is global\nB           1-2     \nC           z       \nTOOLS       given   \n\nSECRET   REQUIRED\ns1       true\ns2       \n\nSSH       REQUIRED\ndefault   \n\n"
	if text.String() != want {
		t.Errorf("%q", text.String())
	}
	o.Target = "alone"
	if doc, err = Find(t.Context(), o); err != nil || len(doc.Args) != 1 || doc.Args[0].Name != "ALONE" {
		t.Errorf("%+v, %v", doc, err)
	}
	o.Target = "alnoe"
	if _, err = Find(t.Context(), o); !errors.Is(err, define.ErrNotFound) {
		t.Error(err)
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	o := folder(t, "Containerfile=# a builds\nFROM --platform=$BUILDPLATFORM x AS a\nFROM a\n")
	doc, err := List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := doc.WriteText(&text); err != nil || text.String() != "TARGET    DESCRIPTION\na         builds\n(default) \n" {
		t.Errorf("%q, %v", text.String(), err)
	}
	got, err := json.Marshal(doc.Targets)
	const want = `[{"name":"a","description":"builds","base":"x","platform":"$BUILDPLATFORM","location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}},` +
		`{"default":true,"base":"a","location":{"ranges":[{"start":{"line":3},"end":{"line":3}}]}}]`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	o := folder(t, "Containerfile=FROM a\nMAINTAINER \x1b[31mx\n")
	r, err := Lint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	const want = `Check complete, 1 warning has been found!

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Containerfile:2
--------------------
   1 |     FROM a
   2 | >>> MAINTAINER ?[31mx
   3 |     
--------------------
`
	if text.String() != want {
		t.Errorf("%s", text.String())
	}
	// Several files: places are those of their file.
	o.Context.Files = []string{"Containerfile", "two"}
	o2 := folder(t, "Containerfile=FROM a\n", "two=\nMAINTAINER x\n")
	o2.Context.Files = []string{"Containerfile", "two"}
	if r, err = Lint(t.Context(), o2); err != nil || len(r.Warnings) != 1 || r.Warnings[0].Location.SourceIndex != 1 || r.Warnings[0].Location.line() != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Checks and outlines of a file that fills in gigabytes end early, also where
// a base image could change what is wrong.
func TestBombs(t *testing.T) {
	text := "ARG G=" + strings.Repeat("x", 900_000) + "\n"
	for _, base := range []string{"scratch", "image"} {
		body := text + "FROM " + base + "\nARG G\nENV a=$G\n" + strings.Repeat("LABEL b=$a\n", 5_000)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		o := Options{Context: buildcontext.Options{Location: dir}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := Lint(t.Context(), o)
		if err != nil || (base == "scratch") != (r.Err() != nil && strings.Contains(r.Err().Error(), ":78: LABEL: the variables of the file fill in more than")) {
			t.Errorf("%s: %v, %.200v", base, err, r.Err())
		}
		if _, err := Find(t.Context(), o); (err != nil) != (base == "scratch") {
			t.Errorf("outline of %s: %.200v", base, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 2<<30 {
			t.Errorf("%s: %d MiB were allocated", base, used>>20)
		}
	}
}
