package fstree_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/fstree"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	own := fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
	spec := strings.ReplaceAll(`
"/a b" dir 0700 OWN @1000000000.000000005
"/a b/new\nline" file 0644 OWN "x\x00y" @-5.000000000
/big file 0600 OWN 100 bytes sha256:PATTERN @1.000000000
/dir dir 0755 OWN @2.000000000
/dir/link link 0777 OWN -> "a target" @3.000000000
/dir/up link 0777 OWN -> ../big @4.000000000
/empty file 4755 OWN "" @5.000000000 user.a="1" user.b="\xff"
/empty2 hard /empty
/pipe fifo 0600 OWN @6.000000000
`, "OWN", own)
	made := strings.ReplaceAll(spec, " sha256:PATTERN", "")
	root := t.TempDir()
	fstree.Make(t, root, made)
	got := fstree.MustDump(t, root, fstree.Contents, fstree.Times)
	got = regexpReplaceDigest(got)
	if want := strings.TrimPrefix(spec, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func regexpReplaceDigest(s string) string {
	i := strings.Index(s, "sha256:")
	return s[:i+7] + "PATTERN" + s[i+7+12:]
}

func TestExampleForm(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	fstree.Make(t, root, `/hello file 0755 "hi\n"`)
	got := fstree.MustDump(t, root, fstree.NoOwner)
	if want := "/hello file 0755 3 bytes\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBuildErrors(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"hello file", "/x", "/x what", "/x link target", `/x file "open`, "/x file ten bytes", "/x hard"} {
		err := fstree.Build(t.TempDir(), "\n"+bad)
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: error %v, want one for line 2", bad, err)
		}
	}
}
