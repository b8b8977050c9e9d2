package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stratabuild/strata/copier"
)

// contentOf is what the tests below say a file holds.
func contentOf(ino uint64, version byte) (sum [32]byte) {
	binary.LittleEndian.PutUint64(sum[:], ino)
	sum[31] = version
	return sum
}

// wantFiles checks that x knows the files 0 to n-1, of two generations, in an
// order that has nothing to do with the entries'.
func wantFiles(t *testing.T, x *FileIndex, n int, old time.Time, version func(ino uint64) byte) {
	t.Helper()
	for _, i := range rand.Perm(n) {
		ino := uint64(i)
		sum, ok := x.Lookup(fileAt(ino, old))
		if !ok || sum != contentOf(ino, version(ino)) {
			t.Fatalf("file %d: %x, %v", ino, sum, ok)
		}
	}
	if _, ok := x.Lookup(fileAt(uint64(n), old)); ok {
		t.Fatal("a file is known that nobody remembered")
	}
}

// What does not fit into memory is found as well, of two states of a file the
// newer one, before and after it is written, and nothing lies in tmp that a
// killed process would leave.
func TestIndexSpills(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	x := openIndex(t, c)
	const n = 3*runEntries + 1000
	for _, i := range rand.Perm(n) {
		x.Remember(fileAt(uint64(i), old), contentOf(uint64(i), 0))
	}
	for i := uint64(0); i < n; i += 5 {
		x.Remember(fileAt(i, old), contentOf(i, 1))
	}
	version := func(ino uint64) byte {
		if ino%5 == 0 {
			return 1
		}
		return 0
	}
	if f := &x.data.fresh; len(f.runs) < 3 || f.n > runEntries || len(f.chunks)*chunkEntries > runEntries {
		t.Fatalf("%d runs, %d entries in memory", len(f.runs), f.n)
	}
	if left, _ := filepath.Glob(filepath.Join(x.data.base, "tmp", "*")); len(left) > 0 {
		t.Errorf("a process that is killed leaves %v", left)
	}
	wantFiles(t, x, n, old, version)
	flush(t, x)
	wantFiles(t, x, n, old, version)
	y := openIndex(t, reopen(c))
	if y.data.old.n != n {
		t.Errorf("%d entries were written, want %d", y.data.old.n, n)
	}
	wantFiles(t, y, n, old, version)
	if kept := blocksInMemory(y.data.old); kept > cachedBlocks {
		t.Errorf("%d blocks stay in memory", kept)
	}

	// What is remembered beside a large index joins it.
	y.Remember(fileAt(n, old), contentOf(n, 0))
	flush(t, y)
	wantFiles(t, openIndex(t, reopen(c)), n+1, old, version)
}

func blocksInMemory(l *entryList) (n int) {
	for i := range l.blocks {
		if l.blocks[i].Load() != nil {
			n++
		}
	}
	return n
}

// An index that cannot put its entries anywhere remembers what fits, and is no
// failure.
func TestIndexSpillsNowhere(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	x := openIndex(t, c)
	tmp := filepath.Join(x.data.base, "tmp")
	if err := os.MkdirAll(x.data.base, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tmp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(runEntries + 100) {
		x.Remember(fileAt(i, old), contentOf(i, 0))
	}
	if err := os.Remove(tmp); err != nil {
		t.Fatal(err)
	}
	flush(t, x)
	wantFiles(t, openIndex(t, reopen(c)), runEntries, old, func(uint64) byte { return 0 })
}

// A block that is damaged hides its own files only, and is not written again.
func TestIndexDamagedBlock(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	x := openIndex(t, c)
	const n = 3 * blockEntries
	for i := range uint64(n) {
		x.Remember(fileAt(i, old), contentOf(i, 0))
	}
	flush(t, x)
	b, err := os.ReadFile(x.data.path)
	if err != nil {
		t.Fatal(err)
	}
	b[indexHead+blockSize+100] ^= 1
	if err := os.WriteFile(x.data.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(x *FileIndex) {
		t.Helper()
		for i := range uint64(n) {
			sum, ok := x.Lookup(fileAt(i, old))
			if want := i/blockEntries != 1; ok != want || ok && sum != contentOf(i, 0) {
				t.Fatalf("file %d is known: %v", i, ok)
			}
		}
	}
	y := openIndex(t, reopen(c))
	check(y)
	y.Remember(fileAt(1000, old), contentOf(1000, 0))
	flush(t, y)
	y = openIndex(t, reopen(c))
	if y.data.old.n != n-blockEntries+1 {
		t.Errorf("%d entries are left", y.data.old.n)
	}
	check(y)
}

// A full index drops what was not used, the older first, and takes what is new.
func TestIndexFull(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes 150 MB")
	}
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	x := openIndex(t, c)
	for i := range uint64(maxEntries + 10) {
		x.Remember(fileAt(i, old), contentOf(i, 0))
	}
	flush(t, x)
	if x = openIndex(t, reopen(c)); x.data.old.n != maxEntries {
		t.Fatalf("%d entries", x.data.old.n)
	}
	const used = 70_000
	for i := range uint64(used) {
		if _, ok := x.Lookup(fileAt(i, old)); !ok {
			t.Fatalf("file %d", i)
		}
	}
	x.Remember(fileAt(1<<40, old), contentOf(1<<40, 0))
	flush(t, x)
	x = openIndex(t, reopen(c))
	if x.data.old.n != used+1 {
		t.Errorf("%d entries are left, want %d", x.data.old.n, used+1)
	}
	for _, i := range []uint64{0, used - 1, 1 << 40} {
		if _, ok := x.Lookup(fileAt(i, old)); !ok {
			t.Errorf("file %d was lost", i)
		}
	}
}

// Blocks come and go while several goroutines look.
func TestEntryListConcurrent(t *testing.T) {
	t.Parallel()
	d := &indexData{old: &entryList{}, base: t.TempDir()}
	const n = 50 * blockEntries
	var e [entrySize]byte
	for i := range uint64(n) {
		putID(e[:], copier.FileID{Ino: 2 * i, Size: int64(i)})
		d.fresh.put(e[:], d.base)
	}
	b := encodeIndex(t, d)
	l := readIndex(bytes.NewReader(b), int64(len(b)))
	l.room = 3
	var wrong atomic.Int64
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			r, near := rand.New(rand.NewPCG(g, 1)), 0
			for range 20_000 {
				i := r.Uint64N(n)
				e, place := l.find(fileKey{0, 2 * i}, near)
				if e == nil || place != int(i) || binary.LittleEndian.Uint64(e[16:]) != i {
					wrong.Add(1)
				}
				if e, _ := l.find(fileKey{0, 2*i + 1}, near); e != nil {
					wrong.Add(1)
				}
				near = place + 1
			}
		})
	}
	wg.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d of the look-ups failed", wrong.Load())
	}
	if kept := blocksInMemory(l); kept > 3 {
		t.Errorf("%d blocks stay", kept)
	}
}

// BenchmarkIndexUse20000 is what a cached build does with an index: it opens
// it and asks for each file once.
func BenchmarkIndexUse20000(b *testing.B) {
	c, old := filledIndex(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		x := openIndex(b, reopen(c))
		for i := range uint64(20_000) {
			if _, ok := x.Lookup(fileAt(i, old)); !ok {
				b.Fatal("unknown")
			}
		}
	}
}

// BenchmarkIndexRemember is a first build; beyond 32,768 files it writes runs.
func BenchmarkIndexRemember(b *testing.B) {
	for _, n := range []uint64{20_000, 200_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, _, clk := newCache(b)
				old := clk.now().Add(-time.Hour)
				x := openIndex(b, c)
				for i := range n {
					x.Lookup(fileAt(i, old))
					x.Remember(fileAt(i, old), contentOf(i, 0))
				}
				flush(b, x)
			}
		})
	}
}
