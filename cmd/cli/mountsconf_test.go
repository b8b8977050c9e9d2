package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/builder"
)

// TestDefaultMountsHidden: a mounts.conf that cannot be looked up is none; one
// that is there and cannot be read is an error.
func TestDefaultMountsHidden(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything, and has no mounts.conf of its own")
	}
	home := t.TempDir()
	conf := filepath.Join(home, ".config", "containers")
	file := filepath.Join(conf, "mounts.conf")
	if err := os.MkdirAll(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("/etc:/run/etc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() (int, error) {
		a := &app{getenv: func(string) string { return home }}
		var o builder.Confinement
		err := a.defaultMounts(&o)
		return len(o.Volumes), err
	}
	if n, err := read(); n != 1 || err != nil {
		t.Errorf("readable: %d mounts, %v", n, err)
	}
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("may not be read: %v, want permission denied", err)
	}
	if err := os.Chmod(home, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(home, 0o700)
	if _, err := read(); err != nil {
		t.Errorf("cannot be looked up: %v", err)
	}
}
