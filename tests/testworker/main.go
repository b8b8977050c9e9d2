package testworker

import (
	"fmt"
	"os"
	"testing"

	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/tests/testenv"
)

// Main is a TestMain's last call: it starts this program again as the worker,
// runs the tests there and exits. Before the tests run, scratch gets a
// directory for their stores, which is removed after them, and worker what
// the process got. A process that is no worker's, such as one that
// containers/storage starts, has to be sent its way before.
func Main(m *testing.M, scratch *string, worker **userns.Info) {
	w, err := userns.Enter(userns.Options{PIDNamespace: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, "no user namespace, no test:", err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "strata-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	*scratch, *worker = dir, w
	code := m.Run()
	if err := testenv.RemoveStore(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
