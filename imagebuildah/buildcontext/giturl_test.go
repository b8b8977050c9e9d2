package buildcontext

import (
	"errors"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

func TestParseGitURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][3]string{
		"https://example.com/a/b.git":                         {"https://example.com/a/b.git", "", ""},
		"https://example.com/a/b.git#main":                    {"https://example.com/a/b.git", "main", ""},
		"https://example.com/a/b.git#main:sub/dir":            {"https://example.com/a/b.git", "main", "sub/dir"},
		"https://example.com/a/b.git#:sub":                    {"https://example.com/a/b.git", "", "sub"},
		"https://u:p@example.com/b.git#refs/heads/x":          {"https://example.com/b.git", "refs/heads/x", ""},
		"http://example.com:8080/b.git":                       {"http://example.com:8080/b.git", "", ""},
		"git://example.com/b":                                 {"git://example.com/b", "", ""},
		"ssh://git@example.com:22/b":                          {"ssh://git@example.com:22/b", "", ""},
		"ssh://git:secret@example.com/b":                      {"ssh://git@example.com/b", "", ""},
		"git@example.com:a/b.git#v1:x":                        {"git@example.com:a/b.git", "v1", "x"},
		"github.com/a/b":                                      {"https://github.com/a/b", "", ""},
		"github.com/a/b.git#dev":                              {"https://github.com/a/b.git", "dev", ""},
		"file:///srv/b.git#v1":                                {"file:///srv/b.git", "v1", ""},
		"./b.git#v1":                                          {"./b.git", "v1", ""},
		"https://example.com/b.git?ref=v2&subdir=x/./y/":      {"https://example.com/b.git", "v2", "x/y"},
		"https://example.com/b.git?branch=dev&submodules=0":   {"https://example.com/b.git", "refs/heads/dev", ""},
		"https://example.com/b.git?tag=v1&commit=abcdef12":    {"https://example.com/b.git", "refs/tags/v1", ""},
		"https://example.com/b.git#feature/a+b_c.d:/abs/path": {"https://example.com/b.git", "feature/a+b_c.d", "abs/path"},
	} {
		g, err := ParseGitURL(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := [3]string{g.Remote, g.Ref, g.Subdir}; got != want {
			t.Errorf("%s: %q; want %q", in, got, want)
		}
		if s := g.Display(); strings.Contains(s, "secret") || strings.Contains(s, "u:p") {
			t.Errorf("%s is shown as %s", in, s)
		}
	}
	for _, in := range []string{"", ".", "-", "folder", "a:b", "https://example.com/a.tar.gz", "https://example.com/", "b.git", "user@host", "C:/x", "https://example.com/%zz", "github.com/"} {
		if IsGitURL(in) {
			t.Errorf("%q counts as git", in)
		}
	}
}

// What could become an option, a forced refspec or another transport.
func TestParseGitURLHostile(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"https://example.com/b.git#-btest:x", "https://example.com/b.git#--upload-pack=touch /canary",
		"https://example.com/b.git#+main", "https://example.com/b.git#a b", "https://example.com/b.git#a..b", "https://example.com/b.git#a\nb",
		"https://example.com/b.git#refs/heads/--output=x", "https://example.com/b.git#@", "https://example.com/b.git#a^{tree}", "https://example.com/b.git#x.lock",
		"https://example.com/b.git#main:../..", "https://example.com/b.git#main:a/../../..", "https://example.com/b.git#main:a/..",
		"ssh://-oProxyCommand=x/b", "ssh://-oProxyCommand=x@host/b", "git://-x/b", "-a@host:b.git", "a@-host:b.git", "a@host:-b",
		"https:///b.git", "ssh://host/", "git://host", "file://host/b.git", "file://b.git",
		"https://example.com/b.git?ref=a&branch=b", "https://example.com/b.git?ref=a#b", "https://example.com/b.git?evil=1", "https://example.com/b.git?ref=-x",
		"https://example.com/b.git?commit=zz", "https://example.com/b.git?subdir=../x", "https://example.com/b.git?submodules=maybe", "https://example.com/b.git?ref=a&ref=b",
		"-x.git#main", "git@host:a b.git", "https://example.com/b.git?subdir=a%00b",
	} {
		g, err := ParseGitURL(in)
		if err == nil {
			t.Errorf("%q is accepted: %+v", in, g)
			continue
		}
		if !errors.Is(err, define.ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("%q: %q", in, err)
		}
	}
}

func FuzzParseGitURL(f *testing.F) {
	for _, s := range []string{"https://u:p@example.com/b.git#main:sub", "git@host:b.git", "./b.git#x", "ssh://-o@h/b", "https://example.com/b.git?ref=x&subdir=y", "file:///b.git#:..", "github.com/a#b", "https://[::1]/b.git"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGitURL(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Fatalf("%q: %q", s, err)
			}
			return
		}
		if strings.HasPrefix(g.Remote, "-") || strings.HasPrefix(g.Ref, "-") || strings.HasPrefix(g.Ref, "+") || strings.ContainsAny(g.Ref, " :\n\x00") {
			t.Fatalf("%q: %+v", s, g)
		}
		for _, part := range strings.Split(g.Subdir, "/") {
			if part == ".." {
				t.Fatalf("%q: %+v", s, g)
			}
		}
		if strings.ContainsAny(g.Display(), "\n\x1b\x00") {
			t.Fatalf("%q: shown as %q", s, g.Display())
		}
	})
}
