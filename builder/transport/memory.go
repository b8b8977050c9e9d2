package transport

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Compressors and decompressors are made anew for each layer, and what they
// leave behind would make the process twice as large before the collector
// looked. While layers are moved, it is told to keep to heapForCopies more
// than what was in use.
const heapForCopies = 42 << 20

var copies struct {
	sync.Mutex
	running int
	before  int64 // the limit to go back to
}

// boundMemory sets the limit until the last of those who called it has called
// what it returns. A limit that is set for the process (GOMEMLIMIT) and is
// lower stays.
func boundMemory() (done func()) {
	copies.Lock()
	defer copies.Unlock()
	if copies.running++; copies.running == 1 {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
		metrics.Read(live)
		limit := int64(heapForCopies)
		for _, s := range live {
			if s.Value.Kind() == metrics.KindUint64 {
				limit += int64(min(s.Value.Uint64(), math.MaxInt64/4))
			}
		}
		copies.before = debug.SetMemoryLimit(-1)
		debug.SetMemoryLimit(min(limit, copies.before))
	}
	return sync.OnceFunc(func() {
		copies.Lock()
		defer copies.Unlock()
		if copies.running--; copies.running == 0 {
			debug.SetMemoryLimit(copies.before)
		}
	})
}
