package imagebuildah_test

import (
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/tests/testworker"
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
	testworker.Main(m, &scratch, &worker)
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
