package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestCall(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]call{
		"":                          {},
		"build":                     {},
		"check":                     {method: "check"},
		"lint,format=json":          {method: "check", json: true},
		"outline,format=text":       {method: "outline"},
		"targets,ignorestatus":      {method: "targets", ignoreStatus: true},
		"check,ignorestatus=false,": {method: "check"},
	} {
		got, err := (&callFlags{call: in}).options(&cobra.Command{})
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"chekc", "check,format", "check,format=yaml", "check,x=y", "check,ignorestatus=perhaps", "build,format=json"} {
		if _, err := (&callFlags{call: in}).options(&cobra.Command{}); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}

func FuzzCall(f *testing.F) {
	f.Add("check,format=json")
	f.Add("outline,ignorestatus=1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := (&callFlags{call: text}).options(&cobra.Command{})
		if err == nil && c.method == "" && text != "" && !strings.HasPrefix(text, "build") && !strings.HasPrefix(text, ",") {
			t.Errorf("%q: %+v", text, c)
		}
	})
}

// FuzzParseSSH reads --ssh.
func FuzzParseSSH(f *testing.F) {
	f.Add("default")
	f.Add("a=/dev/null,/dev/null")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSSH(text, func(string) string { return "" })
		if err == nil && s.ID == "" {
			t.Errorf("%q has no id", text)
		}
	})
}
