package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"root", "userns", "overlay", "newuidmap", "runc", "crun", "buildah", "podman", "skopeo", "no-such-program"} {
		err := Named(name)()
		t.Logf("%-16s %v", name, err)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: a reason of several lines: %v", name, err)
		}
	}
	if Tool("no-such-program")() == nil {
		t.Error("a program that does not exist is usable")
	}
	if (Root() == nil) == (Unprivileged() == nil) && os.Getuid() != 0 {
		t.Error("both root and not")
	}
}

func TestRemoveStore(t *testing.T) {
	t.Parallel()
	s, err := MakeStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(s.Root, "locked", "dir")
	if err := os.MkdirAll(locked, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(locked, "file"), nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(s.Root, "locked"), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := RemoveStore(s.Dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(s.Dir); err == nil {
		t.Error("still there")
	}
}

// Mounts below are detached before anything is removed: what they show stays.
func TestRemoveStoreMounted(t *testing.T) {
	t.Parallel()
	Require(t, Root)
	s, err := MakeStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(s.Root, "a b\\c")
	if err := os.Mkdir(odd, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, m := range [][2]string{{s.Root, s.Root}, {outside, odd}, {outside, odd}} {
		if out, err := exec.Command("mount", "--bind", m[0], m[1]).CombinedOutput(); err != nil {
			t.Skipf("no mounts here: %v: %s", err, out)
		}
	}
	if err := RemoveStore(s.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("removed through a mount: %v", err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(b), s.Dir) {
		t.Errorf("a mount is left (%v)", err)
	}
}

func TestRemoveStoreMapped(t *testing.T) {
	t.Parallel()
	Require(t, Unprivileged, Newuidmap)
	s, err := MakeStore("")
	if err != nil {
		t.Fatal(err)
	}
	script := `mkdir "$1"/d && touch "$1"/d/f && chown -R 5:5 "$1"/d && chmod 0 "$1"/d`
	if out, err := inMappedNamespace("sh", "-c", script, "sh", s.Root); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := RemoveStore(s.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.Dir); err == nil {
		t.Error("still there")
	}
}

func TestRemoveStoreRefuses(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"/", "/usr", "/usr/..", "/var", os.TempDir(), "."} {
		if RemoveStore(dir) == nil {
			t.Errorf("%s was accepted", dir)
		}
	}
	if err := RemoveStore(filepath.Join(t.TempDir(), "missing")); err != nil {
		t.Error(err)
	}
}

func TestUnescape(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"/a": "/a", `/a\040b`: "/a b", `/a\134040`: `/a\040`, `/a\`: `/a\`, `/a\04`: `/a\04`} {
		if got := unescape(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestModuleRoot(t *testing.T) {
	t.Parallel()
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "tests", "testenv")); err != nil {
		t.Error(err)
	}
}
