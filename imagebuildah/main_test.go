package imagebuildah_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/tests/testenv"
)

var (
	scratch string
	worker  *userns.Info
)

// TestMain enters what the strata command enters: a worker with namespaces of
// its own, in which an unprivileged user can use a store.
func TestMain(m *testing.M) {
	if builder.Child() {
		return
	}
	var err error
	if worker, err = userns.Enter(userns.Options{PIDNamespace: true}); err != nil {
		fmt.Fprintln(os.Stderr, "no user namespace, no test:", err)
		os.Exit(1)
	}
	if scratch, err = os.MkdirTemp("", "strata-imagebuildah-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	testenv.RemoveStore(scratch)
	os.Exit(code)
}

// exampleOptions chooses a store of the test's own.
func exampleOptions() builder.Options {
	return builder.Options{
		Store: store.Options{
			Root: filepath.Join(scratch, "root"), RunRoot: filepath.Join(scratch, "run"), Driver: "overlay",
		},
		Rootless: worker.Rootless, SingleID: worker.SingleID,
	}
}
