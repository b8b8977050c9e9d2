package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// What lives decides how much garbage is let grow.
func TestCollector(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 4 << 20: 100, collectorRoom: 100, 2 * collectorRoom: 50, 150 << 20: 21, 1 << 40: 10} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes live: %d %%, want %d", live, got, want)
		}
	}
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		t.Skip("the collector is set by the environment")
	}
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	tuneCollector()
	held := make([]byte, 4*collectorRoom)
	for tries := 0; ; tries++ {
		runtime.GC()
		// Reading it is setting it.
		if got := debug.SetGCPercent(100); got < 50 {
			break
		} else {
			debug.SetGCPercent(got)
		}
		if tries == 1000 {
			t.Fatal("the growth does not follow what lives")
		}
		time.Sleep(time.Millisecond)
	}
	runtime.KeepAlive(held)
}
