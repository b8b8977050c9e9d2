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
	"golang.org/x/sys/unix"
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

// FuzzIndex reads foreign bytes as an index: no panic, memory in proportion to
// the bytes that are there, and what is found is what is gone through, and is
// written as it was read.
func FuzzIndex(f *testing.F) {
	x := &FileIndex{data: &indexData{old: &entryList{}}, opened: math.MaxInt64}
	x.Remember(fileAt(1, time.Unix(1, 2)), sumOf("1"))
	x.Remember(copier.FileID{Ino: 1 << 63, Size: -1}, sumOf("2"))
	f.Add(encodeIndex(f, x.data))
	for i := range uint64(2*blockEntries + 3) {
		x.Remember(fileAt(100+i, time.Unix(1, 2)), sumOf("many"))
	}
	f.Add(encodeIndex(f, x.data))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		old := readIndex(bytes.NewReader(b), int64(len(b)))
		if len(old.marks)*blockSize > len(b)+blockSize {
			t.Fatalf("%d blocks of %d bytes", len(old.marks), len(b))
		}
		near := len(b)%7 - 1
		all := listReader{l: old}
		for e := all.entry(); e != nil; e = all.entry() {
			found, place := old.find(keyOf(e), near)
			if !bytes.Equal(found, e) || place != all.place-1 {
				t.Fatalf("entry %d is found at %d: %x, want %x", all.place-1, place, found, e)
			}
			near = place + 1
		}
		again := encodeIndex(t, &indexData{old: old, used: make([]atomic.Uint32, (old.n+31)/32)})
		back := listReader{l: readIndex(bytes.NewReader(again), int64(len(again)))}
		all = listReader{l: old}
		for e := all.entry(); e != nil; e = all.entry() {
			if older(e) > maxAge {
				continue // old enough to go
			}
			if got := back.entry(); !bytes.Equal(got[:ageAt], e[:ageAt]) {
				t.Fatalf("entry %d: %x became %x", all.place-1, e, got)
			}
		}
		if e := back.entry(); e != nil {
			t.Fatalf("an entry came from nowhere: %x", e)
		}
	})
}

// encodeIndex is the index as it would be written.
func encodeIndex(tb testing.TB, d *indexData) []byte {
	tb.Helper()
	fd, err := unix.MemfdCreate("index", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // of a test
	if err := d.merge(&entryList{}).write(fd); err != nil {
		tb.Fatal(err)
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		tb.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := readAt(fd, b, 0); err != nil {
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
