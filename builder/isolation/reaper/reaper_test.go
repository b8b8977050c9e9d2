package reaper

import (
	"os"
	"testing"
)

func TestStat(t *testing.T) {
	t.Parallel()
	parent, state := stat(os.Getpid())
	if parent != os.Getppid() || state == 0 {
		t.Errorf("%d %c", parent, state)
	}
	if parent, state := stat(1 << 30); parent != 0 || state != 0 {
		t.Errorf("%d %c of no process", parent, state)
	}
}
