package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// scale is how much the rows do; the smoke test does less.
type scale struct {
	steps     int // of a usual Containerfile
	manySteps int // of a long one, and so many layers
	files     int
	fileSize  int64
	bigSize   int64
	medium    int    // files of 1 MiB
	runFiles  int    // files that a RUN makes
	images    int    // in a full store
	layers    int    // of each of them
	deep      [2]int // layers of images to which one is added
	transfer  int    // MiB that are pushed and pulled
	blobs     int    // layers that are pushed and pulled
	sleep     string
}

var full = scale{
	steps: 20, manySteps: 200, files: 20_000, fileSize: 4 << 10, bigSize: 1 << 30, medium: 200, runFiles: 30_000,
	images: 1000, layers: 20, deep: [2]int{127, 400}, transfer: 300, blobs: 50, sleep: "1",
}

// small shows that rows work, not what they take.
var small = scale{
	steps: 2, manySteps: 3, files: 150, fileSize: 10, bigSize: 1 << 20, medium: 2, runFiles: 10, images: 2, layers: 2,
	deep: [2]int{4, 5}, transfer: 1, blobs: 2, sleep: "0.01",
}

// row is one line of the table.
type row struct {
	name string
	// context fills the build's directory, Containerfile included.
	context func(dir string) error
	// cached runs follow a build of the same; before each of them, change
	// changes the context.
	cached bool
	change func(dir string, run int) error
	// fresh gives each run a store of its own; bulky ones have so large files
	// that those of the runs before are removed.
	fresh, bulky bool
	// parallel commands run at once, each with a name of its own.
	parallel int
	// Rows that are no build: what the builders are called with (args), a
	// script of theirs (timed) with B, a function that calls the builder with
	// its options, the move of an image, or the start of a step's init. once
	// runs after the store was made, before runs ahead of every timed run;
	// neither is timed. All see $CONTEXT, $N (a number of the run's own), $DIR
	// (a directory of the tool's own), $REGISTRY and $IMAGE (what pack made).
	args         []string
	timed        string
	move         *move
	init         bool
	once, before string
	// built: the context is built before, once a store.
	built bool
	// store fills the tool's store, where commands would take too long;
	// settled runs begin when its lists were last written some time ago.
	store   func(dir string) error
	settled bool
	// registry: one on loopback is started, empty, for each tool.
	registry bool
	// script is the yardstick's, run by sh in a directory of its own with
	// $BASE (the base image's files), $CONTEXT and $OVERLAY (mount options
	// that this user needs); "" when there is none, and why.
	script, noScript string
}

// primitive reports the rows of commands that work on containers by hand.
func (r row) primitive() bool {
	return r.timed != "" || len(r.args) > 0 && slices.Contains([]string{"from", "run", "config", "rm", "commit"}, r.args[0])
}

func rows(s scale) []row {
	return slices.Concat(stepRows(s), copyRows(s), commandRows(s), storeRows(s), transferRows(s))
}

func stepsRow(n int) string       { return fmt.Sprintf("%d RUN echo, no cache", n) }
func cachedStepsRow(n int) string { return fmt.Sprintf("%d RUN echo, cached", n) }

func stepRows(s scale) []row {
	list := []row{}
	for _, n := range []int{s.steps, s.manySteps} {
		steps := func(dir string) error { return containerfile(dir, runSteps(n)...) }
		list = append(list,
			row{name: stepsRow(n), context: steps, script: fmt.Sprintf("steps=%d\n%s", n, stepScript)},
			row{name: cachedStepsRow(n), context: steps, cached: true, noScript: "by hand nothing is left to do"},
		)
	}
	make30k := fmt.Sprintf("RUN i=0; mkdir /f; while [ $i -lt %d ]; do echo $i >/f/$i; i=$((i+1)); done", s.runFiles)
	removes := func(name, command string) row {
		return row{
			name: fmt.Sprintf(name, s.runFiles), cached: true,
			context: func(dir string) error {
				return containerfile(dir, make30k, "ARG N", "RUN "+command+" && echo $N >/n")
			},
			args:   []string{"build", "--build-arg", "N=$N", "-t", "localhost/bench", "$CONTEXT"},
			script: fmt.Sprintf("files=%d command='%s'\n%s", s.runFiles, command, removeScript),
		}
	}
	return append(list,
		row{
			name:    fmt.Sprintf("RUN makes %d files, no cache", s.runFiles),
			context: func(dir string) error { return containerfile(dir, make30k) },
			script:  fmt.Sprintf("files=%d\n%s", s.runFiles, makeScript),
		},
		removes("RUN deletes %d files and their directory", "rm -r /f"),
		removes("RUN deletes %d files, the directory stays", "cd /f && find . -type f | xargs rm"),
		row{
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
		row{
			name:    fmt.Sprintf("10 builds of %d RUN echo at once", s.steps),
			context: func(dir string) error { return containerfile(dir, runSteps(s.steps)...) }, parallel: 10,
			script: fmt.Sprintf("steps=%d\nfor build in 0 1 2 3 4 5 6 7 8 9; do (\nmkdir b$build; cd b$build\n%s) & pids=\"$pids $!\"; done\nfor p in $pids; do wait $p || exit 1; done\n", s.steps, stepScript),
		},
	)
}

// copyRows copy each kind of context cold, cached, and with one file changed.
func copyRows(s scale) []row {
	big := func(dir string) error {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return makeFile(filepath.Join(dir, "big"), s.bigSize, 1)
	}
	var list []row
	for _, c := range []struct {
		name    string
		make    func(src string) error
		changed string // a file below src
		bulky   bool
	}{
		{fmt.Sprintf("%d files", s.files), func(src string) error { return makeFiles(src, s) }, "d000/f00000", false},
		{
			fmt.Sprintf("%d files of 1 MiB", s.medium),
			func(src string) error { return makeFiles(src, scale{files: s.medium, fileSize: 1 << 20}) }, "d000/f00000", true,
		},
		{fmt.Sprintf("1 file of %d MiB", s.bigSize>>20), big, "small", true},
		{"a source tree", func(src string) error { return sourceTree(src, s) }, "changed.go", false},
	} {
		context := func(dir string) error {
			return errors.Join(c.make(filepath.Join(dir, "src")), containerfile(dir, "COPY src /src"))
		}
		list = append(list,
			row{name: "COPY " + c.name + ", no cache", context: context, fresh: true, bulky: c.bulky, script: copyScript},
			row{name: "COPY " + c.name + ", cached", context: context, cached: true, script: statScript},
			row{
				name: "COPY " + c.name + ", 1 changed", context: context, cached: true, script: copyScript,
				fresh: c.bulky, bulky: c.bulky, built: c.bulky,
				change: func(dir string, run int) error {
					return os.WriteFile(filepath.Join(dir, "src", c.changed), fmt.Appendf(nil, "run %d\n", run), 0o644)
				},
			},
		)
	}
	return list
}

// sourceTree copies a real tree: a module of this project's dependencies with
// many files. Where the module cache lacks it, made files stand for it.
func sourceTree(src string, s scale) error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	from := strings.TrimSpace(string(out))
	if err != nil || from == "" || s.files < 1000 {
		return makeFiles(src, scale{files: min(s.files, 600), fileSize: 16 << 10})
	}
	return os.CopyFS(src, os.DirFS(filepath.Dir(from)))
}

func runSteps(n int) []string {
	steps := make([]string, n)
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
