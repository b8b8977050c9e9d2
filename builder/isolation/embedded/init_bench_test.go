package embedded

import (
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/isolation/embedded/early"
)

// BenchmarkInit is the early initialisation of a step: from the clone of its
// init in new namespaces until the init has read its first message and
// answered. The message is a configuration that it refuses, so that nothing
// else is done. The program is this test's, whose runtime starts as strata's
// does; tests/bench has a row with strata's own.
func BenchmarkInit(b *testing.B) {
	s, err := newStarter()
	if err != nil {
		b.Fatal(err)
	}
	defer s.close() //nolint:errcheck // of /dev/null
	d, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.Available(b.Context()); err != nil {
		b.Skip(err)
	}
	least := time.Hour
	for b.Loop() {
		start := time.Now()
		p, err := s.start(namespaceFlags)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.send(nil, nil); err != nil {
			b.Fatal(err)
		}
		var head [early.ReportSize]byte
		_, ok := p.read(head[:])
		least = min(least, time.Since(start))
		if kind, _, _ := early.DecodeReport(head); !ok || kind != early.ReportSetup {
			b.Fatalf("the init answered %q, %v", head, ok)
		}
		p.end()
	}
	b.ReportMetric(float64(least.Microseconds()), "min-us/op")
}
