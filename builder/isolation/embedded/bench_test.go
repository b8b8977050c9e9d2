package embedded_test

import (
	"os"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
)

// BenchmarkRun is a step that does nothing, from Run to its return.
func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name    string
		ahead   bool
		network isolation.NetworkMode
		seccomp bool
	}{
		{"host", false, isolation.NetworkHost, true},
		{"ahead", true, isolation.NetworkHost, true},
		{"network-none", false, isolation.NetworkNone, true},
		{"no-seccomp", false, isolation.NetworkHost, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, err := embedded.New(embedded.Options{Ahead: c.ahead})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			if err := d.Available(b.Context()); err != nil {
				b.Skip(err)
			}
			root := isolationtest.OpenRoot(b, isolationtest.NewRoot(b))
			spec, err := isolation.NewSpec(isolation.Options{Args: []string{"/bin/sh", "-c", ":"}, Network: c.network,
				Security: isolation.Security{SeccompUnconfined: !c.seccomp}, Rootless: os.Getuid() != 0})
			if err != nil {
				b.Fatal(err)
			}
			least := time.Hour
			for b.Loop() {
				start := time.Now()
				if err := d.Run(b.Context(), &isolation.Step{Spec: spec, Root: root}); err != nil {
					b.Fatal(err)
				}
				least = min(least, time.Since(start))
			}
			b.ReportMetric(float64(least.Microseconds()), "min-us/op")
		})
	}
}
