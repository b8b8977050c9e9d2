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
	write := flag.String("write", "", "write the table to this `file`")
	match := flag.String("run", "", "run the scripts that match this `pattern` (DIRECTORY/NAME) only")
	verbose := flag.Bool("v", false, "print the output of scripts that failed")
	flag.Parse()
	if err := run(flag.Args(), *match, *write, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "places:", err)
		os.Exit(1)
	}
}

func run(names []string, match, write string, verbose bool) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	root, err := testenv.ModuleRoot()
	if err != nil {
		return err
	}
	unfit, err := readUnfit(filepath.Join(root, "tests/places/unfit.tsv"))
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("/var/tmp", "strata-places-")
	if err != nil {
		return err
	}
	defer testenv.RemoveStore(work)
	if err := prepare(root, work); err != nil {
		return err
	}
	var results []result
	bad := 0
	for _, p := range places {
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		fmt.Printf("== %s: %s\n", p.name, p.what)
		r, err := try(p, work, match)
		if err != nil {
			return fmt.Errorf("place %s: %w", p.name, err)
		}
		bad += r.report(unfit, verbose)
		results = append(results, r)
	}
	if write != "" {
		if err := os.WriteFile(write, table(results, unfit), 0o644); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d scripts did not end as expected", bad)
	}
	return nil
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

// outcome is how a script ended.
type outcome struct {
	action string // pass, fail, skip
	reason string // of a skip
	output string
}

// result is a place's outcomes, by script ("cache/args").
type result struct {
	place   place
	scripts map[string]outcome
}

// try runs the scripts in a place.
func try(p place, work, match string) (result, error) {
	r := result{place: p, scripts: map[string]outcome{}}
	cmd, done, err := p.command(work)
	if err != nil {
		return r, err
	}
	defer done()
	pattern := "TestScripts"
	if match != "" {
		pattern += "/" + match
	}
	cmd.Args = append(cmd.Args, filepath.Join(work, "tests.test"), "-test.v=test2json", "-test.timeout=30m", "-test.parallel=4", "-test.run="+pattern)
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
	if err := r.read(lines); err != nil {
		return r, err
	}
	err = errors.Join(cmd.Wait(), convert.Wait())
	if len(r.scripts) == 0 {
		return r, fmt.Errorf("no script ran (%v)", err)
	}
	return r, nil
}

func (r *result) read(in io.Reader) error {
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
			r.scripts[script] = outcome{action: e.Action, reason: reason(output[script]), output: output[script]}
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

// report prints what is not as expected and returns how often that is.
func (r *result) report(unfit map[string]string, verbose bool) (bad int) {
	counts := map[string]int{}
	for _, name := range r.names() {
		o := r.scripts[name]
		why := unfit[r.place.name+"\t"+name]
		switch {
		case o.action == "fail" && why == "":
			bad++
			fmt.Printf("   FAIL %s\n", name)
			if verbose {
				fmt.Println(o.output)
			}
		case o.action == "fail":
			o.action, o.reason = "skip", why
			r.scripts[name] = o
		case o.action == "pass" && why != "":
			bad++
			fmt.Printf("   PASSES, and unfit.tsv says that it cannot: %s\n", name)
		}
		counts[o.action]++
	}
	fmt.Printf("   %d passed, %d skipped, %d failed\n", counts["pass"], counts["skip"], counts["fail"])
	return bad
}

func (r *result) names() []string {
	names := make([]string, 0, len(r.scripts))
	for n := range r.scripts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// readUnfit reads lines "place script reason", with tabs between them.
func readUnfit(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	unfit := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 || f[2] == "" {
			return nil, fmt.Errorf("%s: want place, script and reason with tabs between them: %q", file, line)
		}
		unfit[f[0]+"\t"+f[1]] = f[2]
	}
	return unfit, nil
}
