package layer

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestFirst(t *testing.T) {
	st := newStore(t, "overlay")
	ctx := context.Background()
	sp := NewSpace(st)
	defer sp.Close()
	w, err := sp.Begin(ctx, nil, BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in(w.Root(), "hello"), []byte("hi"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := w.Freeze(ctx, FreezeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w2, err := sp.Begin(ctx, l, BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := os.Remove(in(w2.Root(), "hello")); err != nil {
		t.Fatal(err)
	}
	l2, err := w2.Freeze(ctx, FreezeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := l.Wait(ctx)
	t.Log(i, err)
	i, err = l2.Wait(ctx)
	t.Log(i, err, time.Since(start))
	if err != nil {
		t.Fatal(err)
	}
}
