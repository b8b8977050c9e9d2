package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnvironment: what su(1) and containers leave in the environment of a
// user is put right before anything is looked for in it.
func TestEnvironment(t *testing.T) {
	needRoot(t)
	const uid = 54321 // has no account
	for _, c := range []struct {
		name       string
		set        []string
		home, note string
	}{
		{name: "no home, no account", set: []string{"HOME="}, home: NoHome},
		{name: "root's home", set: []string{"HOME=PRIVATE"}, home: NoHome, note: "cannot be entered by user 54321"},
		{name: "root's runtime directory", set: []string{"HOME=/", "XDG_RUNTIME_DIR=PUBLIC"}, home: "/", note: "is another user's"},
		{name: "a runtime directory that is not there", set: []string{"HOME=/", "XDG_RUNTIME_DIR=/nowhere"}, home: "/"},
		{name: "a home that is not there", set: []string{"HOME=/nowhere/at/all"}, home: "/nowhere/at/all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			private, public := filepath.Join(dir, "private"), filepath.Join(dir, "public")
			for d, mode := range map[string]os.FileMode{private: 0o700, public: 0o755, dir: 0o755, filepath.Dir(dir): 0o755} {
				if err := os.MkdirAll(d, mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(d, mode); err != nil {
					t.Fatal(err)
				}
			}
			for _, argument := range []string{"argument", "images"} { // the latter is guessed to want a worker
				cmd := command(t, "plain", uid)
				cmd.Args = append(cmd.Args, argument)
				for _, kv := range c.set {
					cmd.Env = append(cmd.Env, strings.NewReplacer("PRIVATE", private, "PUBLIC", public).Replace(kv))
				}
				r := run(t, cmd)
				notes := strings.Join(r.Info.Notes, "\n")
				if r.Home != c.home || !strings.Contains(notes, c.note) || c.note == "" && strings.Contains(notes, "HOME") {
					t.Errorf("%s: HOME %q, want %q; notes %q, want %q", argument, r.Home, c.home, notes, c.note)
				}
			}
		})
	}
}
