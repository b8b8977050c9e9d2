package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stratabuild/strata/imagebuildah"
)

func TestParseSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"TOKEN": "value"}
	getenv := func(name string) string { return env[name] }
	for in, want := range map[string]imagebuildah.Secret{
		"id=a,src=" + file:            {ID: "a", File: file},
		"id=a,source=" + file:         {ID: "a", File: file},
		"type=file,id=a,src=" + file:  {ID: "a", File: file},
		"id=" + file:                  {ID: file, File: file},
		"id=a,env=TOKEN":              {ID: "a", Value: []byte("value")},
		"id=TOKEN":                    {ID: "TOKEN", Value: []byte("value")},
		"id=TOKEN,type=env":           {ID: "TOKEN", Value: []byte("value")},
		"id=a,type=env,src=TOKEN":     {ID: "a", Value: []byte("value")},
		`"id=a,b","src=` + file + `"`: {ID: "a,b", File: file},
	} {
		got, err := parseSecret(in, getenv)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v (%v)", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"": "want id", "id": "no value", "id=": "no value", "src=x": "id is missing", "id=a,src=/no/such": "no such file",
		"id=a,env=UNSET": "UNSET is not set", "id=a,type=raw": "file or env", "id=a,hidden=x": "unknown name",
		"id=a,src=x,env=y": "not both", "id=a,type=file,env=TOKEN": "not both", "id=a,src=/": "want a file", `"id=a`: "want id",
	} {
		if _, err := parseSecret(in, getenv); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add("id=a,src=b")
	f.Add(`"id=a""b",type=env`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSecret(text, func(string) string { return "" })
		if err == nil && s.ID == "" {
			t.Errorf("%q has no id", text)
		}
	})
}

func TestParseSSH(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string { return map[string]string{"SSH_AUTH_SOCK": file}[name] }
	for in, want := range map[string]imagebuildah.SSH{
		"default":                     {ID: "default", Paths: []string{file}},
		"a=" + file:                   {ID: "a", Paths: []string{file}},
		"a=" + file + "," + file + "": {ID: "a", Paths: []string{file, file}},
	} {
		got, err := parseSSH(in, getenv)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v (%v)", in, got, err)
		}
	}
	for _, in := range []string{"", "=", "a=", "=x", "a=/no/such", "a=" + file + ",/no/such"} {
		if _, err := parseSSH(in, getenv); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
	if _, err := parseSSH("default", func(string) string { return "" }); err == nil {
		t.Error("no agent, no error")
	}
}
