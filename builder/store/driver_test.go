package store

import (
	"os"
	"path/filepath"
	"testing"

	"go.podman.io/storage/types"
)

// TestSettleDriverNew: the driver of a new store is what works there, whatever
// the run root remembers of another store, and looking leaves nothing behind.
func TestSettleDriverNew(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounts: needs root")
	}
	dir := t.TempDir()
	works, err := mountsOverlay(filepath.Join(dir, "none/yet"))
	if err != nil {
		t.Fatal(err)
	}
	stale := map[bool]string{true: "overlay-false", false: "overlay-true"}[works]
	run := filepath.Join(dir, "run")
	if err := os.MkdirAll(filepath.Join(run, "overlay"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"overlay-false", "overlay-true"} {
		if err := os.WriteFile(filepath.Join(run, "overlay", name), []byte("of another store"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	so := types.StoreOptions{GraphRoot: filepath.Join(dir, "root"), RunRoot: run}
	why := settleDriver(&so)
	if works && (why != "" || so.GraphDriverName != "") || !works && so.GraphDriverName == "overlay" {
		t.Errorf("driver %q, %q; overlay works: %v", so.GraphDriverName, why, works)
	}
	if _, err := os.Lstat(filepath.Join(run, "overlay", stale)); err == nil {
		t.Errorf("%s is believed", stale)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "run" {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestUnfit: a disk's file system is not tried.
func TestUnfit(t *testing.T) {
	t.Parallel()
	for _, single := range []bool{true, false} {
		for _, dir := range []string{t.TempDir(), "/proc", "/nonexistent"} {
			if err := unfit(dir, single); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}
