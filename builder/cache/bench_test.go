package cache

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// filled returns a cache with n records besides.
func filled(b *testing.B, n int) (*Cache, *memoryStore) {
	c, ms, _ := newCache(b)
	for i := range n {
		k := key(PartParent, fmt.Sprint(i), PartInstruction, "RUN a")
		save(b, c, Slot{Build: "fill", N: i}, k, Result{Created: time.Now()})
	}
	return c, ms
}

func stepKey(i int) *Key {
	k := key(PartParent, fmt.Sprintf("sha256:%064d", i), PartInstruction, "RUN make -j4 all install", "user", "", "workdir", "/src", "network", "host")
	for v := range 10 {
		k.Add(fmt.Sprint("variable VAR_", v), "some value")
	}
	return k
}

func BenchmarkLookupHit(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			c, _ := filled(b, n)
			save(b, c, step2, stepKey(1), Result{Created: time.Now()})
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := lookup(b, c, stepKey(1)); !ok {
					b.Fatal("no hit")
				}
			}
		})
	}
}

func BenchmarkLookupMiss(b *testing.B) {
	c, _ := filled(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := lookup(b, c, stepKey(1)); ok {
			b.Fatal("a hit")
		}
	}
}

func BenchmarkLookupHit20000Files(b *testing.B) {
	c, _ := filled(b, 0)
	k, files := stepKey(1), manyFiles(20_000)
	k.AddFiles(PartFile, files)
	save(b, c, step2, k, Result{Created: time.Now()})
	for b.Loop() {
		k := stepKey(1)
		k.AddFiles(PartFile, files)
		if _, ok := lookup(b, c, k); !ok {
			b.Fatal("no hit")
		}
	}
}

func BenchmarkSaveNew(b *testing.B) {
	c, _ := filled(b, 0)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		save(b, c, Slot{Build: "b", N: i % 20, Instruction: "RUN"}, stepKey(i), Result{Created: time.Now()})
	}
}

func BenchmarkSaveAgain(b *testing.B) {
	c, _ := filled(b, 0)
	for b.Loop() {
		save(b, c, step2, stepKey(1), Result{Created: time.Now()})
	}
}

func BenchmarkSave20000Files(b *testing.B) {
	c, _ := filled(b, 0)
	files := manyFiles(20_000)
	i := 0
	for b.Loop() {
		i++
		k := stepKey(i)
		k.AddFiles(PartFile, files)
		save(b, c, step2, k, Result{Created: time.Now()})
	}
}

func BenchmarkSeen(b *testing.B) {
	c, _ := filled(b, 0)
	save(b, c, step2, stepKey(1), Result{})
	for b.Loop() {
		if err := c.Seen(context.Background(), step2, stepKey(1)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExplain20000Files(b *testing.B) {
	c, _ := filled(b, 0)
	k, files := stepKey(1), manyFiles(20_000)
	k.AddFiles(PartFile, files)
	save(b, c, step2, k, Result{})
	files[12_345].sum = sumOf("changed")
	k = stepKey(1)
	k.AddFiles(PartFile, files)
	b.ReportAllocs()
	for b.Loop() {
		if e, err := c.Explain(context.Background(), step2, k); err != nil || e.Part != PartFile+files[12_345].path {
			b.Fatal(e, err)
		}
	}
}

func filledIndex(b *testing.B, n int) (*Cache, time.Time) {
	c, _, clk := newCache(b)
	old := clk.now().Add(-time.Hour)
	x := openIndex(b, c)
	for i := range n {
		x.Remember(fileAt(uint64(i), old), sumOf(fmt.Sprint(i)))
	}
	flush(b, x)
	return c, old
}

func BenchmarkIndexLoad20000(b *testing.B) {
	c, _ := filledIndex(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		openIndex(b, reopen(c))
	}
}

func BenchmarkIndexLookup(b *testing.B) {
	c, old := filledIndex(b, 20_000)
	x := openIndex(b, reopen(c))
	i := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		if _, ok := x.Lookup(fileAt(i%20_000, old)); !ok {
			b.Fatal("unknown")
		}
	}
}

func BenchmarkIndexFlush20000(b *testing.B) {
	c, old := filledIndex(b, 20_000)
	x := openIndex(b, c)
	for b.Loop() {
		x.Remember(fileAt(1, old), sumOf("x"))
		flush(b, x)
	}
}
