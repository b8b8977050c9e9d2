package cache

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier"
)

// FuzzRecord reads foreign bytes as a record: no panic, and no Result but
// from a file whose checksum is right.
func FuzzRecord(f *testing.F) {
	k := key(PartParent, "x", PartInstruction, "RUN a")
	k.AddFiles(PartFile, manyFiles(3))
	id := k.id()
	whole := encodeRecord(f, k, Result{Layer: layerID("l"), Note: "n"})
	f.Add(whole)
	f.Add(whole[:headSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "record")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		rec, err := openRecord(path, id)
		if err != nil {
			return
		}
		defer rec.close()
		head := headSize + int(rec.head.resultLen)
		if sum := headSum(b, b[headSize:head]); !bytes.Equal(sum[:], b[sumAt:headSize]) {
			t.Error("a result with a wrong checksum")
		}
		_, _, _ = rec.readParts()
	})
}

// FuzzParts reads foreign bytes as key parts: no panic, bounded memory, and
// what was read is written as it was read.
func FuzzParts(f *testing.F) {
	k := key("", "", PartParent, "sha256:", "variable A", "x", "variable A", digest.FromString("x").String())
	k.AddFiles(PartFile, manyFiles(5))
	body, kept := encodeParts(k)
	f.Add(body, uint32(kept))
	f.Add([]byte{0, 0, 0}, uint32(1<<31))
	f.Add(slices.Concat([]byte{0, 100}, make([]byte, 100), []byte{1}, bytes.Repeat([]byte{100, 0, 1}, 50)), uint32(51))
	f.Fuzz(func(t *testing.T, b []byte, count uint32) {
		parts, err := decodeParts(b, count)
		if err != nil {
			return
		}
		if uint32(len(parts)) != count {
			t.Fatalf("%d parts, want %d", len(parts), count)
		}
		var same Key
		for _, p := range parts {
			same.Add(p.Name, p.Value)
		}
		again, kept := encodeParts(&same)
		if kept != len(parts) {
			return
		}
		back, err := decodeParts(again, count)
		if err != nil || !slices.Equal(back, parts) {
			t.Fatalf("%v: %q became %q", err, parts, back)
		}
	})
}

// FuzzIndex reads foreign bytes as an index.
func FuzzIndex(f *testing.F) {
	x := &FileIndex{data: &indexData{}, opened: math.MaxInt64}
	x.Remember(fileAt(1, time.Unix(1, 2)), sumOf("1"))
	x.Remember(copier.FileID{Ino: 1 << 63, Size: -1}, sumOf("2"))
	f.Add(encodeIndex(f, x))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		old := decodeIndex(slices.Clone(b))
		for i := range old.len() {
			place, ok := old.find(old.at(i)[:16], len(b)%7-1)
			if !ok || place != i {
				t.Fatalf("entry %d is found at %d, %v", i, place, ok)
			}
		}
		back := decodeIndex(encodeIndex(t, &FileIndex{data: &indexData{old: old, used: make([]atomic.Uint32, (old.len()+31)/32)}}))
		for i, j := 0, 0; i < old.len(); i++ {
			if age := old.at(i)[ageAt]; age > maxAge {
				continue // old enough to go
			}
			if !bytes.Equal(old.at(i)[:ageAt], back.at(j)[:ageAt]) {
				t.Fatalf("entry %d: %x became %x", i, old.at(i), back.at(j))
			}
			j++
		}
	})
}

// encodeIndex is the index as it would be written.
func encodeIndex(tb testing.TB, x *FileIndex) []byte {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "index"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := x.data.merge(nil).write(int(f.Fd())); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// FuzzKey: two lists of parts have one digest only when they are equal.
func FuzzKey(f *testing.F) {
	f.Add("a", "b", "c", "d")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		x, y := key(a, b), key(c, d)
		if (x.Digest() == y.Digest()) != (a == c && b == d) {
			t.Errorf("%q %q and %q %q", a, b, c, d)
		}
		if both := key(a, b, c, d); both.Digest() == x.Digest() || both.Digest() == key(a+b, c+d).Digest() {
			t.Errorf("%q %q %q %q", a, b, c, d)
		}
	})
}
