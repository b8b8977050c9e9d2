package cache

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stratabuild/strata/copier"
)

func openIndex(tb testing.TB, c *Cache) *FileIndex {
	tb.Helper()
	x, err := c.Index(context.Background(), "context")
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

func flush(tb testing.TB, x *FileIndex) {
	tb.Helper()
	if err := x.Flush(); err != nil {
		tb.Fatal(err)
	}
}

// fileAt is a file last written at t.
func fileAt(ino uint64, t time.Time) copier.FileID {
	return copier.FileID{Dev: 1, Ino: ino, Size: int64(ino), MTime: t.UnixNano(), CTime: t.UnixNano()}
}

// reopen looks at the files with the eyes of another process.
func reopen(c *Cache) *Cache { return &Cache{layers: c.layers, state: c.state, now: c.now} }

func TestIndex(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	x := openIndex(t, c)
	old := clk.now().Add(-time.Hour)
	id, content := fileAt(1, old), sumOf("content")
	if _, ok := x.Lookup(id); ok {
		t.Error("an empty index knows a file")
	}
	x.Remember(id, content)
	flush(t, x)
	for _, x := range []*FileIndex{x, openIndex(t, c), openIndex(t, reopen(c))} {
		if got, ok := x.Lookup(id); !ok || got != content {
			t.Errorf("got %x, %v", got, ok)
		}
		for _, change := range []func(*copier.FileID){
			func(f *copier.FileID) { f.Dev++ },
			func(f *copier.FileID) { f.Ino++ },
			func(f *copier.FileID) { f.Size++ },
			func(f *copier.FileID) { f.MTime++ },
			func(f *copier.FileID) { f.CTime++ },
		} {
			other := id
			change(&other)
			if _, ok := x.Lookup(other); ok {
				t.Errorf("%+v is known, only %+v should be", other, id)
			}
		}
	}
	other, err := c.Index(context.Background(), "another name")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := other.Lookup(id); ok {
		t.Error("an index of another name knows the file")
	}
}

// A file written within two seconds of its being read is not trusted, nor is
// one from the future.
func TestIndexRacy(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	x := openIndex(t, c)
	opened := clk.now()
	clk.advance(time.Minute) // when it is read does not count: when reading may have begun does
	tests := []struct {
		name         string
		mtime, ctime time.Duration // after the index was opened
		want         bool
	}{
		{"long ago", -time.Hour, -time.Hour, true},
		{"just outside", -2001 * time.Millisecond, -2001 * time.Millisecond, true},
		{"just inside", -1999 * time.Millisecond, -1999 * time.Millisecond, false},
		{"same time", 0, 0, false},
		{"touched back", -time.Hour, -time.Second, false},
		{"written while building", 3 * time.Second, 3 * time.Second, false},
		{"future modification", time.Hour, -time.Hour, false},
		{"future change", -time.Hour, time.Hour, false},
		{"before 1970", -80 * 365 * 24 * time.Hour, -time.Hour, true},
	}
	for i, tt := range tests {
		id := copier.FileID{Ino: uint64(i), MTime: opened.Add(tt.mtime).UnixNano(), CTime: opened.Add(tt.ctime).UnixNano()}
		x.Remember(id, sumOf(tt.name))
		if _, ok := x.Lookup(id); ok != tt.want {
			t.Errorf("%s: remembered %v, want %v", tt.name, ok, tt.want)
		}
	}
	id := fileAt(1, opened.Add(3*time.Second))
	openIndex(t, c).Remember(id, sumOf("x"))
	if _, ok := x.Lookup(id); !ok {
		t.Error("an index opened a minute later does not trust the file")
	}
}

func TestIndexDamaged(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	x := openIndex(t, c)
	old := clk.now().Add(-time.Hour)
	for i := range uint64(5) {
		x.Remember(fileAt(i, old), sumOf(fmt.Sprint(i)))
	}
	flush(t, x)
	file := x.data.path
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(b []byte, what string) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := openIndex(t, reopen(c))
		for i := range uint64(5) {
			if _, ok := x.Lookup(fileAt(i, old)); ok {
				t.Fatalf("%s: a file is known", what)
			}
		}
	}
	for i := range whole {
		b := append([]byte(nil), whole...)
		b[i] ^= 1
		try(b, fmt.Sprintf("byte %d", i))
		try(whole[:i], fmt.Sprintf("%d bytes", i))
	}
	try(append(append([]byte(nil), whole...), 0), "a byte more")
	try(make([]byte, len(whole)), "zeros")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if x := openIndex(t, reopen(c)); x.data.old.n != 0 {
		t.Error("a directory has entries")
	}
}

// Flush writes only news, and keeps what another process wrote meanwhile.
func TestIndexFlush(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	x := openIndex(t, c)
	flush(t, x)
	if n := count(t, c, "index"); n != 0 {
		t.Fatal("an empty index was written")
	}
	y := openIndex(t, reopen(c))
	x.Remember(fileAt(1, old), sumOf("1"))
	y.Remember(fileAt(2, old), sumOf("2"))
	flush(t, x)
	flush(t, y)
	before, err := os.Stat(x.data.path)
	if err != nil {
		t.Fatal(err)
	}
	z := openIndex(t, reopen(c))
	for i := range uint64(2) {
		if _, ok := z.Lookup(fileAt(i+1, old)); !ok {
			t.Errorf("file %d was lost", i+1)
		}
	}
	flush(t, z)
	after, err := os.Stat(x.data.path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("written again without news")
	}
	if x := openIndex(t, c); x.data.old.n != 2 {
		t.Error("a process does not see what another wrote")
	}
	if left, _ := filepath.Glob(filepath.Join(x.data.base, "tmp", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Files that are gone leave the index some day; files in use never do.
func TestIndexAges(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	used, gone := fileAt(1, old), fileAt(2, old)
	x := openIndex(t, c)
	x.Remember(used, sumOf("1"))
	x.Remember(gone, sumOf("2"))
	flush(t, x)
	for i := range uint64(maxAge + 2) {
		x := openIndex(t, reopen(c))
		if _, ok := x.Lookup(used); !ok {
			t.Fatalf("lost after %d builds", i)
		}
		x.Remember(fileAt(10+i, old), sumOf("new"))
		flush(t, x)
	}
	x = openIndex(t, reopen(c))
	if _, ok := x.Lookup(used); !ok {
		t.Error("a file in use was lost")
	}
	if _, ok := x.Lookup(gone); ok {
		t.Error("a file not used for long is still known")
	}
}

func TestIndexConcurrent(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	old := clk.now().Add(-time.Hour)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			x, err := c.Index(context.Background(), "context")
			if err != nil {
				t.Error(err)
				return
			}
			for i := range uint64(300) {
				id := fileAt(i%100, old)
				if d, ok := x.Lookup(id); ok && d != sumOf(fmt.Sprint(id.Ino)) {
					t.Errorf("file %d: %x", id.Ino, d)
				}
				x.Remember(id, sumOf(fmt.Sprint(id.Ino)))
				if i%100 == g {
					if err := x.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}
