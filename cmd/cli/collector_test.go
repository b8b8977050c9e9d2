package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// What lives, and what of it has pointers, decides how much garbage is let
// grow.
func TestCollector(t *testing.T) {
	for _, tt := range []struct {
		live, searched uint64
		want           int
	}{
		{0, 0, 100},
		{4 << 20, 4 << 20, 100},
		{leastRoom, 0, 100},
		{4 * leastRoom, 0, 25},
		{4 * leastRoom, leastRoom / 2, 50},
		{collectorRoom, collectorRoom, 100},
		{2 * collectorRoom, 2 * collectorRoom, 50},
		{150 << 20, 100 << 20, 21},
		{150 << 20, 1 << 20, 10},
		{1 << 40, 1 << 40, 10},
	} {
		if got := gcPercent(tt.live, tt.searched); got != tt.want {
			t.Errorf("%d bytes live, %d with pointers: %d %%, want %d", tt.live, tt.searched, got, tt.want)
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
