package imagebuildah

import (
	"fmt"
	"io/fs"
	"testing"
)

func TestParseChmod(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		in   fs.FileMode
		want string
	}{
		{"755", 0o644, "755"},
		{"0644", 0o755, "644"},
		{"4711", 0o644, "4711"},
		{"u=rwX,go=rX", 0o600, "644"},
		{"u=rwX,go=rX", 0o700, "755"},
		{"u=rwX,go=rX", fs.ModeDir | 0o700, "755"},
		{"a+x", 0o644, "755"},
		{"+x", 0o644, "755"},
		{"go-rwx", 0o777, "700"},
		{"u+s", 0o755, "4755"},
		{"g+s,o+t", 0o755, "3755"},
		{"a=", 0o777, "0"},
		{"u=rw+x", 0o000, "700"},
	} {
		f, err := parseChmod(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := fmt.Sprintf("%o", toUnix(f(c.in))); got != c.want {
			t.Errorf("%s on %v: %s, want %s", c.text, c.in, got, c.want)
		}
	}
	for _, bad := range []string{"9", "77777", "u", "rwx", "u=q", "z+x", "u+x,", "-1"} {
		if _, err := parseChmod(bad); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
