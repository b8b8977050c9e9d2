package transport

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

func TestNormalizeTag(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"busybox", "localhost/busybox:latest"},
		{"a/b", "localhost/a/b:latest"},
		{"a/b:v1", "localhost/a/b:v1"},
		{"host:5000/x", "host:5000/x:latest"},
		{"host:5000/x:y", "host:5000/x:y"},
		{"localhost/x", "localhost/x:latest"},
		{"localhost:5000/x", "localhost:5000/x:latest"},
		{"example.com/x", "example.com/x:latest"},
		{"docker.io/busybox", "docker.io/library/busybox:latest"},
		{"a.b", "localhost/a.b:latest"},
		{"name:5000", "localhost/name:5000"},
	} {
		got, err := NormalizeTag(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("NormalizeTag(%q) = %q, %v; want %q", tc.in, got, err, tc.want)
		}
	}
}

func TestNormalizeTagExplains(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"", "empty"},
		{"my app", `' ' is not allowed`},
		{"MyApp:V1", "write myapp:V1"},
		{"ex.com/A/b", "write ex.com/a/b"},
		{"x@sha256:" + strings.Repeat("a", 64), "digest"},
		{"a//b", "empty part"},
		{"/a", "empty part"},
		{"a/", "empty part"},
		{"a:", "tag after the colon is empty"},
		{"naïve", `'ï' is not allowed`},
		{"a\nb", `'\n' is not allowed`},
		{strings.Repeat("a", 64), "looks like an image ID"},
		{strings.Repeat("x", 600), "600 characters"},
		{"-a", "invalid"},
	} {
		_, err := NormalizeTag(tc.in)
		if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("NormalizeTag(%q): %v, want %q", tc.in, err, tc.want)
		}
	}
}

func TestIsTransport(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"docker://x": true, "oci:dir": true, "oci:dir:tag": true, "oci-archive:f": true,
		"docker-archive:f:n": true, "dir:d": true, "containers-storage:x": true,
		"docker:latest": false, "busybox": false, "localhost:5000/x": false, "": false,
		"docker-daemon:x": false, "sif:x": false, "host/oci:tag": false,
	} {
		if got := IsTransport(name); got != want {
			t.Errorf("IsTransport(%q) = %v", name, got)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	all := []string{"localhost/builder:latest", "docker.io/library/alpine:latest", "docker.io/library/alpine:3.20", "localhost/app:v1", "quay.io/x/tool:latest"}
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"alpin", []string{`"docker.io/library/alpine:latest"`}},
		{"apline", []string{`"docker.io/library/alpine:latest"`}},
		{"localhost/bulider", []string{`"localhost/builder:latest"`}},
		{"app:v2", []string{`"localhost/app:v1"`}},
		{"app", []string{`"localhost/app:v1"`}},
		{"postgres", nil},
	} {
		got := nearest(tc.in, all)
		if len(got) > 0 && len(tc.want) > 0 {
			got = got[:len(tc.want)]
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("nearest(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\n\t b":          "a b",
		"x\x1b[31mred\x07": `x\x1b[31mred\a`,
		"a\u202eb":         `a\u202eb`,
		" lead":            "lead",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", in, got, want)
		}
	}
	if n := len(oneLine(strings.Repeat("x", 1<<20))); n > 2100 {
		t.Errorf("a long text stays %d bytes", n)
	}
}
