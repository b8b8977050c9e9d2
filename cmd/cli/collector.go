package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// collectorRoom is how much garbage may gather before it is collected, once
// that much lives; leastRoom where what lives holds few pointers, so that a
// collection costs little: names and digests of files, buffers.
const (
	collectorRoom = 32 << 20
	leastRoom     = 8 << 20
)

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
		heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
		metrics.Read(heap)
		percent := 100
		if heap[0].Value.Kind() == metrics.KindUint64 && heap[1].Value.Kind() == metrics.KindUint64 {
			percent = gcPercent(heap[0].Value.Uint64(), heap[1].Value.Uint64())
		}
		debug.SetGCPercent(percent)
		afterCollection()
	})
}

// gcPercent is the growth that leaves room to garbage, where so many bytes
// live, and so many of them have to be searched for pointers.
func gcPercent(live, searched uint64) int {
	room := min(collectorRoom, leastRoom+2*searched)
	return min(100, max(10, int(100*room/max(1, live))))
}
