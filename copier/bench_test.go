package copier

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stratabuild/strata/tests/fstree"
)

// Run with -benchtime=10x or so: each round writes files that have to be
// removed again.

// manyFiles makes 20,000 files of 4 KiB in 200 directories.
func manyFiles(b *testing.B) (r *Root, dir string, bytes int64) {
	b.Helper()
	dir = filepath.Join(b.TempDir(), "src")
	content := fstree.Pattern(4096)
	for i := range 200 {
		d := filepath.Join(dir, fmt.Sprintf("d%d/sub%d", i%20, i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file%d", j)), content, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	return openRoot(b, dir, false), dir, 20_000 * 4096
}

func oneFile(b *testing.B, size int64) (r *Root, dir string, bytes int64) {
	b.Helper()
	dir = filepath.Join(b.TempDir(), "src")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), fstree.Pattern(size), 0o644); err != nil {
		b.Fatal(err)
	}
	return openRoot(b, dir, false), dir, size
}

func benchPut(b *testing.B, src *Root, size int64) {
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		out := b.TempDir()
		dst, err := OpenRoot(out)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		sel, err := src.Select(context.Background(), Select{Patterns: []string{"."}})
		if err != nil {
			b.Fatal(err)
		}
		if err := sel.Put(context.Background(), dst, Put{Dest: "/app", Owner: self()}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := dst.RemoveAll("app"); err != nil {
			b.Fatal(err)
		}
		dst.Close()
		b.StartTimer()
	}
}

// benchCp is the baseline: cp -a of the same tree.
func benchCp(b *testing.B, dir string, size int64) {
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		out := b.TempDir()
		b.StartTimer()
		if msg, err := exec.Command("cp", "-a", "--reflink=auto", dir, out+"/app").CombinedOutput(); err != nil {
			b.Skipf("cp: %v: %s", err, msg)
		}
		b.StopTimer()
		os.RemoveAll(out)
		b.StartTimer()
	}
}

func BenchmarkPutMany(b *testing.B)   { r, _, n := manyFiles(b); benchPut(b, r, n) }
func BenchmarkCpMany(b *testing.B)    { _, dir, n := manyFiles(b); benchCp(b, dir, n) }
func BenchmarkPutOneGiB(b *testing.B) { r, _, n := oneFile(b, 1<<30); benchPut(b, r, n) }
func BenchmarkCpOneGiB(b *testing.B)  { _, dir, n := oneFile(b, 1<<30); benchCp(b, dir, n) }

// BenchmarkPutUpper writes a new subtree through an overlay mount, and past it.
func BenchmarkPutUpper(b *testing.B) {
	src, _, size := manyFiles(b)
	for _, past := range []bool{false, true} {
		b.Run(map[bool]string{false: "through", true: "past"}[past], func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				b.StopTimer()
				merged, upper, _ := overlay(b, "/etc/passwd file \"\"")
				p := Put{Dest: "/app", Owner: self()}
				if past {
					p.Upper = upper
				}
				b.StartTimer()
				sel, err := src.Select(context.Background(), Select{Patterns: []string{"."}})
				if err != nil {
					b.Fatal(err)
				}
				if err := sel.Put(context.Background(), merged, p); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := merged.RemoveAll("app"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkDigests(b *testing.B) {
	many, _, size := manyFiles(b)
	one, _, gib := oneFile(b, 1<<30)
	for _, c := range []struct {
		name string
		r    *Root
		size int64
		x    Index
	}{{"many", many, size, nil}, {"many, known", many, size, &mapIndex{}}, {"one", one, gib, nil}, {"one, known", one, gib, &mapIndex{}}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(c.size)
			if c.x != nil {
				digestsIn(b, c.r, DigestOptions{Index: c.x}, ".")
			}
			for b.Loop() {
				digestsIn(b, c.r, DigestOptions{Index: c.x}, ".")
			}
		})
	}
}

func BenchmarkSelect(b *testing.B) {
	many, _, _ := manyFiles(b)
	for b.Loop() {
		if _, err := many.Select(context.Background(), Select{Patterns: []string{"."}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExtract(b *testing.B) {
	many, _, size := manyFiles(b)
	var archive bytes.Buffer
	if err := many.Tar(context.Background(), ".", &archive); err != nil {
		b.Fatal(err)
	}
	for kind, in := range compressed(b, archive.Bytes()) {
		if kind == "xz" {
			continue // its decoder takes longer than all the rest
		}
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				dst, _ := makeRoot(b, "", false)
				if err := dst.Extract(context.Background(), bytes.NewReader(in), Extract{Dest: "/", Owner: self()}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
