package layer

import (
	stdcrc "hash/crc64"
	"math/rand/v2"
	"testing"
)

var isoTable = stdcrc.MakeTable(stdcrc.ISO)

func TestCRC64MatchesStandard(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 5000)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	for n := range 300 {
		if got, want := crc64(0, p[:n]), stdcrc.Checksum(p[:n], isoTable); got != want {
			t.Fatalf("%d bytes: %x, want %x", n, got, want)
		}
	}
	for range 200 {
		var got uint64
		rest := p
		for len(rest) > 0 {
			n := min(len(rest), r.IntN(400))
			got = crc64(got, rest[:n])
			rest = rest[n:]
		}
		if want := stdcrc.Checksum(p, isoTable); got != want {
			t.Fatalf("in pieces: %x, want %x", got, want)
		}
	}
}

func FuzzCRC64(f *testing.F) {
	f.Add([]byte("strata"), uint64(0))
	f.Fuzz(func(t *testing.T, p []byte, start uint64) {
		if got, want := crc64(start, p), stdcrc.Update(start, isoTable, p); got != want {
			t.Fatalf("%x, want %x", got, want)
		}
	})
}

func BenchmarkCRC64(b *testing.B) {
	p := make([]byte, 256<<10)
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			crc64(0, p)
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			stdcrc.Update(0, isoTable, p)
		}
	})
}
