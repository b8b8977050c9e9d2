package transport

import (
	"runtime/debug"
	"testing"
)

// The limit is there while anybody needs it, and goes with the last.
func TestBoundMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	one := boundMemory()
	limit := debug.SetMemoryLimit(-1)
	if limit >= before || limit < heapForCopies {
		t.Errorf("limit %d, before %d", limit, before)
	}
	two := boundMemory()
	one()
	one() // once is enough
	if now := debug.SetMemoryLimit(-1); now != limit {
		t.Errorf("limit %d while one copies, want %d", now, limit)
	}
	two()
	if now := debug.SetMemoryLimit(-1); now != before {
		t.Errorf("limit %d at the end, want %d", now, before)
	}
	defer debug.SetMemoryLimit(before)
	debug.SetMemoryLimit(1 << 20)
	done := boundMemory()
	if now := debug.SetMemoryLimit(-1); now != 1<<20 {
		t.Errorf("the process's own limit became %d", now)
	}
	done()
}
