package buildcontext

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzURL reads references to contexts and build files: what is shown of them
// holds no credential, and what is made of them is a name.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://u:p@h/a.tar?token=x#f", "HTTP://h", "http://[::1]:80/..", "http://h/%2e%2e/%2f", "https://h/a\x00b", "git@h:x", "ssh://h/x", "-", "github.com/a/b", "http://%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		shown := displayURL(s)
		if strings.ContainsAny(shown, "\n\x1b\x00") {
			t.Fatalf("%q: shown as %q", s, shown)
		}
		if u, err := url.Parse(s); err == nil {
			if password, ok := u.User.Password(); ok && len(password) > 8 && strings.Contains(shown, "@") && strings.Contains(shown, password+"@") {
				t.Fatalf("%q: shown as %q", s, shown)
			}
			if name := urlName(u); name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
				t.Fatalf("%q: named %q", s, name)
			}
		}
		if k := classify(s); k == kindHTTP && !isHTTP(s) {
			t.Fatalf("%q: %v", s, k)
		}
	})
}

// FuzzHidesSource compares the rule about ignored sources with the matcher.
func FuzzHidesSource(f *testing.F) {
	f.Add("a*\n**/b", "a/b")
	f.Add("**", ".")
	f.Add("!x", "x")
	f.Fuzz(func(t *testing.T, content, source string) {
		i, err := ParseIgnore("f", []byte(content))
		if err != nil {
			return
		}
		if i.HidesSource(source) && i.Empty() {
			t.Fatalf("%q hides %q", content, source)
		}
	})
}
