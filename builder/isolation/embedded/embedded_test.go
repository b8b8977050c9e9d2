package embedded_test

import (
	"testing"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
)

func newDriver(o embedded.Options) func(t *testing.T) isolation.Driver {
	return func(t *testing.T) isolation.Driver {
		d, err := embedded.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func TestDriver(t *testing.T) {
	isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{})})
}

func TestDriverAhead(t *testing.T) {
	isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{Ahead: true})})
}
