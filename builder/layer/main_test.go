package layer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/builder/store"
	"go.podman.io/storage/pkg/reexec"
)

func TestMain(m *testing.M) {
	if reexec.Init() { // containers/storage unpacks layers in a child of itself
		return
	}
	os.Exit(m.Run())
}

// newStore opens an empty store with the driver, or skips.
func newStore(t testing.TB, driver string) *store.Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a store needs root, or a user namespace")
	}
	dir := t.TempDir()
	st, err := store.Open(context.Background(), store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: driver})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		st.Raw().Free()
	})
	return st
}

// in returns a path below a root by descriptor.
func in(f *os.File, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name) }
