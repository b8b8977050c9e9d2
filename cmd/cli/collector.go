package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// collectorRoom is how much garbage may gather before it is collected, once
// that much lives.
const collectorRoom = 32 << 20

// tuneCollector fits the collector of garbage to commands that mostly live for
// some milliseconds and seldom hold much: the first collection comes at 16 MiB
// and not at 4, and beyond collectorRoom the garbage stops growing with what
// lives, as the default would have it. GOGC and GOMEMLIMIT are the user's
// word.
func tuneCollector() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(400)
	afterCollection()
}

// collection is unreachable as soon as it is made, so that its finalizer tells
// of the next collection.
type collection struct{ _ *byte }

func afterCollection() {
	runtime.SetFinalizer(&collection{}, func(*collection) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		percent := 100
		if live[0].Value.Kind() == metrics.KindUint64 {
			percent = gcPercent(live[0].Value.Uint64())
		}
		debug.SetGCPercent(percent)
		afterCollection()
	})
}

// gcPercent is the growth that leaves collectorRoom to garbage.
func gcPercent(live uint64) int {
	return max(10, int(100*collectorRoom/max(collectorRoom, live)))
}
