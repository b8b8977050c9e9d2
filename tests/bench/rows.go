package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// scale is how much the rows do; the smoke test does less.
type scale struct {
	steps    int
	files    int
	fileSize int64
	bigSize  int64
	sleep    string
}

var full = scale{steps: 20, files: 20_000, fileSize: 4 << 10, bigSize: 1 << 30, sleep: "1"}

// row is one line of the table.
type row struct {
	name string
	// context fills the build's directory, Containerfile included.
	context func(dir string) error
	// cached runs follow a build of the same; before each of them, change
	// changes the context.
	cached bool
	change func(dir string, run int) error
	// fresh gives each run a store of its own, where layers are large.
	fresh bool
	// script is the yardstick's, run by sh in a directory of its own with
	// $BASE (the base image's files), $CONTEXT and $OVERLAY (mount options
	// that this user needs); "" when there is none.
	script string
}

func rows(s scale) []row {
	copyFiles := func(dir string) error {
		return errors.Join(makeFiles(filepath.Join(dir, "src"), s), containerfile(dir, "COPY src /src"))
	}
	return []row{
		{
			name:    fmt.Sprintf("%d RUN echo, no cache", s.steps),
			context: func(dir string) error { return containerfile(dir, runSteps(s)...) },
			script:  fmt.Sprintf("steps=%d\n%s", s.steps, stepScript),
		},
		{
			name:    fmt.Sprintf("%d RUN echo, cached", s.steps),
			context: func(dir string) error { return containerfile(dir, runSteps(s)...) },
			cached:  true,
		},
		{name: fmt.Sprintf("COPY %d files, no cache", s.files), context: copyFiles, fresh: true, script: copyScript},
		{name: fmt.Sprintf("COPY %d files, cached", s.files), context: copyFiles, cached: true, script: statScript},
		{
			name: fmt.Sprintf("COPY %d files, 1 changed", s.files), context: copyFiles, cached: true, script: copyScript,
			change: func(dir string, run int) error {
				return os.WriteFile(filepath.Join(dir, "src", "d000", "f00000"), fmt.Appendf(nil, "run %d\n", run), 0o644)
			},
		},
		{
			name: fmt.Sprintf("COPY 1 file of %d MiB, no cache", s.bigSize>>20), fresh: true, script: copyScript,
			context: func(dir string) error {
				if err := os.MkdirAll(filepath.Join(dir, "src"), 0o755); err != nil {
					return err
				}
				return errors.Join(makeFile(filepath.Join(dir, "src", "big"), s.bigSize, 1), containerfile(dir, "COPY src /src"))
			},
		},
		{
			name: "4 stages of sleep " + s.sleep + ", no cache",
			context: func(dir string) error {
				var text strings.Builder
				for i := range 4 {
					fmt.Fprintf(&text, "FROM %s AS s%d\nRUN sleep %s && echo %d >/stage\n", baseName, i, s.sleep, i)
				}
				fmt.Fprintf(&text, "FROM %s\n", baseName)
				for i := range 4 {
					fmt.Fprintf(&text, "COPY --from=s%d /stage /stage%d\n", i, i)
				}
				return os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text.String()), 0o644)
			},
			script: fmt.Sprintf("sleep=%s\n%s", s.sleep, stageScript),
		},
	}
}

func runSteps(s scale) []string {
	steps := make([]string, s.steps)
	for i := range steps {
		steps[i] = fmt.Sprintf("RUN echo %d >/step%d", i+1, i+1)
	}
	return steps
}

// baseName is the base image's name in every store.
const baseName = "localhost/bench-base"

func containerfile(dir string, lines ...string) error {
	text := "FROM " + baseName + "\n" + strings.Join(lines, "\n") + "\n"
	return os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text), 0o644)
}

// makeFiles makes files of random content, a hundred a directory.
func makeFiles(dir string, s scale) error {
	for i := range s.files {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := makeFile(filepath.Join(sub, fmt.Sprintf("f%05d", i)), s.fileSize, uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

// makeFile writes content that is the same each time, and that nothing
// compresses or finds twice.
func makeFile(path string, size int64, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	random := rand.New(rand.NewPCG(seed, 1))
	var b [8]byte
	for ; size > 0; size -= 8 {
		n := random.Uint64()
		for i := range b {
			b[i] = byte(n >> (8 * i))
		}
		if _, err := w.Write(b[:min(8, size)]); err != nil {
			break // Flush reports it again
		}
	}
	return errors.Join(w.Flush(), f.Close())
}
