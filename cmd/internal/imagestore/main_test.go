package imagestore

import (
	"fmt"
	"os"
	"testing"

	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/userns"
)

// TestMain gives unprivileged users the namespace that a store needs.
func TestMain(m *testing.M) {
	imagetest.Main(m, func() func() {
		if _, err := userns.Enter(userns.Options{}); err != nil {
			fmt.Fprintln(os.Stderr, "tests of the store are skipped:", err)
		}
		return nil
	})
}
