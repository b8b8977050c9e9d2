package cli

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/imagebuildah"
)

func TestCachePlaces(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]imagebuildah.CachePlace{
		"r.example/a":                             {{Type: "registry", Ref: "r.example/a"}},
		"r.example/a,r.example/b:tag":             {{Type: "registry", Ref: "r.example/a"}, {Type: "registry", Ref: "r.example/b:tag"}},
		"type=registry,ref=r.example/a":           {{Type: "registry", Ref: "r.example/a"}},
		"type=local,dest=d":                       {{Type: "local", Ref: "d"}},
		"type=local,dest=d,mode=max":              {{Type: "local", Ref: "d"}},
		`type=local,"dest=a,b",ignore-error=true`: {{Type: "local", Ref: "a,b"}},
		"type=local,src=d":                        nil,
		"type=gha,scope=x":                        nil,
		"ref=r.example/a":                         nil,
		"type=registry,ref=r.example/a,zip":       nil,
		"":                                        nil,
		`"`:                                       nil,
	} {
		got, err := cachePlaces("cache-to", "dest", value)
		if (err == nil) != (want != nil) || err == nil && len(got) != len(want) {
			t.Errorf("%s: %v, %v", value, got, err)
			continue
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", value, got, want)
			}
		}
	}
}

func TestReadArgFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "argfile.conf")
	for content, want := range map[string]map[string]string{
		"":                    {},
		"# A=1\n\n  # B\n":    {},
		"A=1\nB=a=b\nC=\nA=2": {"A": "2", "B": "a=b", "C": ""},
		"A":                   nil,
		"=1":                  nil,
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		err := readArgFile(name, got)
		if (err == nil) != (want != nil) || err == nil && !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v", content, got, err)
		}
	}
}
