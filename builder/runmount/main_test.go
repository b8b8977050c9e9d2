package runmount

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/tests/testworker"
	"go.podman.io/storage/pkg/reexec"
)

var (
	scratch string
	worker  *userns.Info
)

// TestMain enters what the strata command enters: a worker with namespaces of
// its own.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	testworker.Main(m, &scratch, &worker)
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "store-")
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"),
		Driver: "overlay", SingleID: worker.SingleID})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// read lists a tree's root, or reads it when it is a file.
func read(t *testing.T, tree *os.File) string {
	t.Helper()
	path := fmt.Sprintf("/proc/self/fd/%d", tree.Fd())
	entries, err := os.ReadDir(path)
	if err != nil {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	out := ""
	for _, e := range entries {
		out += e.Name() + " "
	}
	return out
}

func write(t *testing.T, tree *os.File, name, content string) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/%s", tree.Fd(), name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
