package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// outcome is how a script ended.
type outcome struct {
	Action string `json:"action"`           // pass, fail, skip
	Reason string `json:"reason,omitempty"` // of a skip
	Output string `json:"output,omitempty"` // of a failure
	Strata string `json:"strata"`           // the version that was tried
}

// result is a place's outcomes, by script ("cache/args").
type result struct {
	place   place
	scripts map[string]outcome
}

// load reads what earlier runs found in a place. Nothing is no error.
func load(dir string, p place) (result, error) {
	r := result{place: p, scripts: map[string]outcome{}}
	b, err := os.ReadFile(filepath.Join(dir, p.name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r.scripts)
	}
	return r, err
}

// save puts what a run found beside what earlier runs found of other scripts.
func (r *result) save(dir string) error {
	all, err := load(dir, r.place)
	if err != nil {
		return err
	}
	for name, o := range r.scripts {
		if o.Action != "fail" {
			o.Output = ""
		}
		all.scripts[name] = o
	}
	b, err := json.MarshalIndent(all.scripts, "", "\t")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, r.place.name+".json")
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// only drops the scripts that are not in names: they were removed since.
func (r *result) only(names []string) {
	for name := range r.scripts {
		if !slices.Contains(names, name) {
			delete(r.scripts, name)
		}
	}
}

// without are the scripts that have not been tried in the place, or failed and
// should not have.
func (r *result) without(names []string, unfit map[string]string) []string {
	var out []string
	for _, name := range names {
		o, tried := r.scripts[name]
		if !tried || o.Action == "fail" && unfit[r.place.name+"\t"+name] == "" {
			out = append(out, name)
		}
	}
	return out
}

// report prints what is not as expected and returns how often that is.
func (r *result) report(unfit map[string]string, verbose bool) (bad int) {
	counts := map[string]int{}
	for _, name := range r.names() {
		o := r.scripts[name]
		why := unfit[r.place.name+"\t"+name]
		action := o.Action
		switch {
		case o.Action == "fail" && why == "":
			bad++
			fmt.Printf("   FAIL %s\n", name)
			if verbose {
				fmt.Println(o.Output)
			}
		case o.Action == "fail":
			action = "unfit"
		case o.Action == "pass" && why != "":
			bad++
			fmt.Printf("   PASSES, and unfit.tsv says that it cannot: %s\n", name)
		}
		counts[action]++
	}
	fmt.Printf("   %d passed, %d skipped, %d unfit, %d failed\n", counts["pass"], counts["skip"], counts["unfit"], counts["fail"])
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

// scripts are the names of all scripts that the pattern (FOLDER or
// FOLDER/NAME, regular expressions as those of go test -run) fits.
func scripts(root, pattern string) ([]string, error) {
	folder, name, _ := strings.Cut(pattern, "/")
	inFolder, err := regexp.Compile(folder)
	if err != nil {
		return nil, err
	}
	inName, err := regexp.Compile(name)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(root, "tests/scripts/*/*.txtar"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		dir, base := filepath.Base(filepath.Dir(f)), strings.TrimSuffix(filepath.Base(f), ".txtar")
		if inFolder.MatchString(dir) && inName.MatchString(base) {
			names = append(names, dir+"/"+base)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no script fits -run %s", pattern)
	}
	return names, nil
}

// testPattern is what makes the tests run these scripts and no others.
func testPattern(names []string) string {
	var b strings.Builder
	for i, n := range names {
		dir, base, _ := strings.Cut(n, "/")
		if i > 0 {
			b.WriteByte('|')
		}
		fmt.Fprintf(&b, "^TestScripts$/^%s$/^%s$", regexp.QuoteMeta(dir), regexp.QuoteMeta(base))
	}
	return b.String()
}

// readUnfit reads lines "place script reason", with tabs between them. Each
// must be about a place and a script that there are.
func readUnfit(file string, all []string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	unfit := map[string]string{}
	for line := range bytes.Lines(b) {
		if line[0] == '#' {
			continue
		}
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), "\t")
		if len(f) != 3 || f[2] == "" {
			return nil, fmt.Errorf("%s: want place, script and reason with tabs between them: %q", file, line)
		}
		if !slices.ContainsFunc(places, func(p place) bool { return p.name == f[0] }) || !slices.Contains(all, f[1]) {
			return nil, fmt.Errorf("%s: no such place or script: %q", file, line)
		}
		unfit[f[0]+"\t"+f[1]] = f[2]
	}
	return unfit, nil
}
