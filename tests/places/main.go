package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stratabuild/strata/tests/testenv"
)

func main() {
	var o options
	flag.StringVar(&o.dir, "results", "bin/places", "keep what the scripts of each place came to in this `directory`")
	flag.StringVar(&o.write, "write", "", "write the table of all that is kept to this `file`")
	flag.StringVar(&o.match, "run", "", "run the scripts that fit this `pattern` (FOLDER or FOLDER/NAME) only")
	flag.BoolVar(&o.again, "again", false, "run only scripts that have no result, or failed")
	flag.BoolVar(&o.none, "table", false, "run nothing: report, and write the table of what is kept")
	flag.BoolVar(&o.verbose, "v", false, "print the output of scripts that failed")
	flag.Parse()
	if err := run(flag.Args(), o); err != nil {
		fmt.Fprintln(os.Stderr, "places:", err)
		os.Exit(1)
	}
}

type options struct {
	dir, write, match    string
	again, none, verbose bool
}

func run(names []string, o options) error {
	if os.Geteuid() != 0 && !o.none {
		return errors.New("needs root")
	}
	for _, n := range names {
		if !slices.ContainsFunc(places, func(p place) bool { return p.name == n }) {
			return fmt.Errorf("no such place: %s", n)
		}
	}
	root, err := testenv.ModuleRoot()
	if err != nil {
		return err
	}
	all, err := scripts(root, "")
	if err != nil {
		return err
	}
	wanted, err := scripts(root, o.match)
	if err != nil {
		return err
	}
	unfit, err := readUnfit(filepath.Join(root, "tests/places/unfit.tsv"), all)
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	work := ""
	if !o.none {
		if work, err = os.MkdirTemp("/var/tmp", "strata-places-"); err != nil {
			return err
		}
		defer testenv.RemoveStore(work)
		if err := prepare(root, work); err != nil {
			return err
		}
	}
	bad := 0
	for _, p := range places {
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		fmt.Printf("== %s: %s\n", p.name, p.what)
		n, err := one(p, o, work, wanted, unfit)
		if err != nil {
			return fmt.Errorf("place %s: %w", p.name, err)
		}
		bad += n
	}
	if o.write != "" {
		if err := writeTable(o.write, o.dir, all, unfit); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d scripts did not end as expected", bad)
	}
	return nil
}

// one runs the wanted scripts in a place, keeps what they came to, and returns
// how many did not end as expected. Without a work directory it runs none.
func one(p place, o options, work string, wanted []string, unfit map[string]string) (bad int, err error) {
	r, err := load(o.dir, p)
	if err != nil {
		return 0, err
	}
	if o.again {
		wanted = r.without(wanted, unfit)
	}
	r.only(wanted)
	if work != "" && len(wanted) > 0 {
		if r, err = try(p, work, wanted, o.dir); err != nil {
			return 0, err
		}
	}
	bad = r.report(unfit, o.verbose)
	for _, name := range wanted {
		if _, ok := r.scripts[name]; !ok {
			bad++
			fmt.Printf("   NOT RUN %s\n", name)
		}
	}
	return bad, nil
}

// prepare puts what the places need where every user can read it.
func prepare(root, work string) error {
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	binary, err := testenv.Binary()
	if err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return errors.New("needs busybox (package busybox-static)")
	}
	for _, args := range [][]string{
		{"go", "test", "-c", "-o", filepath.Join(work, "tests.test"), "./tests"},
		{"cp", "-r", filepath.Join(root, "tests"), filepath.Join(work, "tests")},
		{"mkdir", filepath.Join(work, "strata"), filepath.Join(work, "busybox"), filepath.Join(work, "state")},
		{"cp", binary, filepath.Join(work, "strata", "strata")},
		{"cp", busybox, filepath.Join(work, "busybox", "busybox")},
		{busybox, "sh", "-c", `for a in $("$0" --list); do test "$a" = busybox || ln -s busybox "$1/$a"; done`, busybox, filepath.Join(work, "busybox")},
		{"chmod", "-R", "go+rX", work},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// try runs the scripts in a place, and keeps each one's result at once.
func try(p place, work string, names []string, dir string) (result, error) {
	r := result{place: p, scripts: map[string]outcome{}}
	cmd, done, err := p.command(work)
	if err != nil {
		return r, err
	}
	defer done()
	version, err := exec.Command(filepath.Join(work, "strata", "strata"), "version").Output()
	if err != nil {
		return r, err
	}
	line, _, _ := strings.Cut(string(version), "\n")
	cmd.Args = append(cmd.Args, filepath.Join(work, "tests.test"), "-test.v=test2json", "-test.timeout=30m", "-test.parallel=4", "-test.run="+testPattern(names))
	cmd.Dir = filepath.Join(work, "tests")
	convert := exec.Command("go", "tool", "test2json")
	if convert.Stdin, err = cmd.StdoutPipe(); err != nil {
		return r, err
	}
	cmd.Stderr = os.Stderr
	lines, err := convert.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := errors.Join(convert.Start(), cmd.Start()); err != nil {
		return r, err
	}
	if err := r.read(lines, strings.TrimSpace(strings.TrimPrefix(line, "Version:")), dir); err != nil {
		return r, err
	}
	err = errors.Join(cmd.Wait(), convert.Wait())
	if len(r.scripts) == 0 {
		return r, fmt.Errorf("no script ran (%v)", err)
	}
	return r, nil
}

func (r *result) read(in io.Reader, version, dir string) error {
	output := map[string]string{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		f := strings.SplitN(e.Test, "/", 3)
		if len(f) < 3 {
			if e.Action == "output" && e.Test == "" && strings.Contains(e.Output, "cannot") {
				fmt.Print(e.Output)
			}
			continue
		}
		script := f[1] + "/" + f[2]
		switch e.Action {
		case "output":
			output[script] += e.Output
		case "pass", "fail", "skip":
			r.scripts[script] = outcome{Action: e.Action, Reason: reason(output[script]), Output: output[script], Strata: version}
			if err := r.save(dir); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// reason is the text of the line "file.go:123: text".
func reason(output string) string {
	for line := range strings.Lines(output) {
		if _, text, ok := strings.Cut(strings.TrimSpace(line), ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok && !strings.HasPrefix(text, "#") && !strings.HasPrefix(text, ">") {
				return text
			}
		}
	}
	return "a condition in the script"
}
