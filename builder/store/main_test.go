package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.podman.io/storage/pkg/reexec"
)

func TestMain(m *testing.M) {
	if reexec.Init() { // containers/storage unpacks layers in a child of itself
		return
	}
	if child := os.Getenv("STRATA_TEST_CHILD"); child != "" {
		if err := children[child](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// children are what the test binary does when it is started again.
var children = map[string]func() error{"hold": childHold, "lock": childLock}

func openDir(dir, driver string) (*Store, error) {
	return Open(context.Background(), Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: driver})
}

// newStore opens an empty store with the driver, or skips.
func newStore(t testing.TB, driver string) (st *Store, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a store needs root or a user namespace")
	}
	dir = t.TempDir()
	st, err := openDir(dir, driver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		st.Raw().Free()
	})
	return st, dir
}
