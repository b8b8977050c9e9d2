package cache

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier"
)

// FuzzRecord reads foreign bytes as a record: no panic, and no Result but
// from a file whose checksum is right.
func FuzzRecord(f *testing.F) {
	k := key(PartParent, "x", PartInstruction, "RUN a")
	k.AddFiles(manyFiles(3))
	id := k.id()
	data, err := encodeRecord(id, k.parts, Result{Layer: layerID("l"), Note: "n"})
	if err != nil {
		f.Fatal(err)
	}
	whole := slices.Concat(data...)
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
	k.AddFiles(manyFiles(5))
	body, kept := encodeParts(k.parts)
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
		again, kept := encodeParts(parts)
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
	entries := []indexEntry{{id: fileAt(1, time.Unix(1, 2))}, {id: copier.FileID{Ino: 1 << 63, Size: -1}, age: 3}}
	f.Add(encodeIndex(entries))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries := decodeIndex(b)
		if entries == nil {
			return
		}
		for i := range entries {
			entries[i].age--
		}
		back := decodeIndex(encodeIndex(entries))
		for i := range entries {
			entries[i].age = min(entries[i].age, maxAge) + 1
		}
		if !slices.Equal(back, entries) {
			t.Fatalf("%v became %v", entries, back)
		}
	})
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
