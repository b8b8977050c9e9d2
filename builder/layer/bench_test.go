package layer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// manyFiles makes n files of 4 KiB in directories of 100.
func manyFiles(b *testing.B, dir string, n int) {
	b.Helper()
	content := make([]byte, 4096)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("directory-%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(d, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file-%05d", i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// report adds the processor time of each round, which tells more than the
// clock does on a busy machine.
func report(b *testing.B, start unix.Rusage) {
	var end unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &end) != nil {
		return
	}
	ns := func(r unix.Rusage) int64 { return r.Utime.Nano() + r.Stime.Nano() }
	b.ReportMetric(float64(ns(end)-ns(start))/1e6/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(end.Maxrss)/1024, "peak-MiB")
}

func usage() (r unix.Rusage) {
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return r
}

func benchmarkDigest(b *testing.B, dir string) {
	root := openTree(b, dir)
	start := usage()
	for b.Loop() {
		sum, err := (&tarStream{root: root}).digest(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		sum.Close()
		b.SetBytes(sum.Size)
	}
	report(b, start)
}

func BenchmarkDigest10000Files(b *testing.B) {
	dir := b.TempDir()
	manyFiles(b, dir, 10000)
	benchmarkDigest(b, dir)
}

func BenchmarkDigest1GiB(b *testing.B) {
	dir := b.TempDir()
	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(chunk)
	for range 1024 {
		if _, err := f.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	f.Close()
	benchmarkDigest(b, dir)
}

// BenchmarkStep is a whole step that writes one file: begin, freeze, and in
// the background the commit.
func BenchmarkStep(b *testing.B) {
	for _, wait := range []bool{false, true} {
		b.Run(fmt.Sprintf("wait=%v", wait), func(b *testing.B) {
			f := newFixture(b, "overlay")
			ctx := context.Background()
			base := f.base()
			f.wait(base)
			var last *Layer
			start := usage()
			n := 0
			for b.Loop() {
				w, err := f.sp.Begin(ctx, base, BeginOptions{})
				if err != nil {
					b.Fatal(err)
				}
				n++
				if err := os.WriteFile(in(w.Root(), "file"), fmt.Appendf(nil, "%d", n), 0o644); err != nil {
					b.Fatal(err)
				}
				if last, err = w.Freeze(ctx, FreezeOptions{}); err != nil {
					b.Fatal(err)
				}
				if wait {
					f.wait(last)
				}
			}
			report(b, start)
			f.wait(last)
			f.sp.commits.Wait()
		})
	}
}

// BenchmarkCommit10000Files is the commit of such a layer.
func BenchmarkCommit10000Files(b *testing.B) {
	f := newFixture(b, "overlay")
	ctx := context.Background()
	n := 0
	for b.Loop() {
		b.StopTimer()
		w, err := f.sp.Begin(ctx, nil, BeginOptions{})
		if err != nil {
			b.Fatal(err)
		}
		manyFiles(b, in(w.Root(), "."), 10000)
		n++
		write(b, w.Root(), "round", fmt.Sprint(n))
		b.StartTimer()
		l, err := w.Freeze(ctx, FreezeOptions{})
		if err != nil {
			b.Fatal(err)
		}
		f.wait(l)
	}
}

func BenchmarkView(b *testing.B) {
	f := newFixture(b, "overlay")
	base := f.base()
	f.wait(base)
	start := usage()
	for b.Loop() {
		v, err := f.sp.View(context.Background(), base)
		if err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
	report(b, start)
}
