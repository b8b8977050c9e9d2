package containerfile

import (
	"strings"
	"testing"
)

func TestSmoke(t *testing.T) {
	f, err := Parse("Containerfile", []byte("# syntax=docker/dockerfile:1\nARG V=1\nFROM busybox:${V} AS Base\nRUN --mount=type=cache,target=/x <<EOF\necho hi\nEOF\nFROM scratch\nCOPY --from=base a \\\n  # c\n  b /c/\n"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.Graph("", nil)
	t.Logf("%+v %+v %v", f, g, err)
	long := "FROM x\nRUN echo " + strings.Repeat("abc # def ", 120_000) + "\nRUN <<EOF\n" + strings.Repeat("x", 200_000) + "\nEOF\nUSER a\n"
	f, err = Parse("Containerfile", []byte(long))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Stages[0].Instructions {
		t.Log(i.Line, len(i.Text), i.Keyword)
	}
	for _, s := range []string{"", "FRM x", "FROM x\nRUN --mont=x a", "FROM a\nCOPY --from=builder x y\nFROM b AS builder", "FROM a AS builder\nFROM b\nCOPY --from=bulder a b", "FROM a\nEXPOSE 80/tpc", "FROM a\nSTOPSIGNAL SIGTRM", "FROM a\nRUN <<EOF\nx", "FROM a\nCOPY a", "ONBUILD ONBUILD a", "FROM a\nONBUILD RNU a", "FROM a\nONBUILD ONBUILD x", "RUN x", "FROM a\nENV a", "FROM a\nENV a=b c", "FROM a\nHEALTHCHECK --interval=x CMD a", "FROM a\nRUN --mount=type=cahe,target=/a x"} {
		_, err := Parse("Containerfile", []byte(s))
		t.Log(err)
	}
}
