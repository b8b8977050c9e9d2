// Command summary reads what "go test -json" prints and shows what a person
// needs of it: a line for each package, the output of the tests that failed,
// the reasons for which tests were skipped, and counts. It exits with 1 when
// something failed.
//
//	go test -json ./... | go run ./tests/summary
//	go run ./tests/summary -counts FILE...
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type summary struct {
	passed, failed, skipped int
	output                  map[string][]string // of tests and packages that have not ended
	reasons                 map[string]int      // why tests were skipped
	failures                []string
}

func main() {
	counts := flag.Bool("counts", false, "print the counts of saved outputs only")
	flag.Parse()
	s := &summary{output: map[string][]string{}, reasons: map[string]int{}}
	if *counts {
		for _, name := range flag.Args() {
			f, err := os.Open(name)
			if err != nil {
				fmt.Fprintln(os.Stderr, "summary:", err)
				os.Exit(1)
			}
			s.read(f, io.Discard)
			f.Close()
		}
		s.skips(os.Stdout)
		fmt.Printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
		return
	}
	s.read(os.Stdin, os.Stdout)
	if len(s.failures) > 0 {
		fmt.Printf("failed: %s\n", strings.Join(s.failures, ", "))
		os.Exit(1)
	}
}

func (s *summary) read(r io.Reader, w io.Writer) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(w, lines.Text()) // what a compiler says
			continue
		}
		s.event(e, w)
	}
}

func (s *summary) event(e event, w io.Writer) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		s.output[key] = append(s.output[key], e.Output)
		return
	case "pass":
		if e.Test != "" {
			s.passed++
		}
	case "skip":
		if e.Test != "" {
			s.skipped++
			s.reasons[reason(s.output[key])]++
		}
	case "fail":
		if e.Test != "" {
			s.failed++
		}
		s.failures = append(s.failures, strings.TrimSpace(key))
		fmt.Fprintf(w, "--- FAIL: %s\n%s", strings.TrimSpace(key), strings.Join(s.output[key], ""))
	case "build-fail":
		s.failures = append(s.failures, key)
		fmt.Fprint(w, strings.Join(s.output[key], ""))
	default:
		return
	}
	delete(s.output, key)
	if e.Test == "" && e.Action != "skip" {
		took := time.Duration(e.Elapsed * float64(time.Second)).Round(100 * time.Millisecond)
		fmt.Fprintf(w, "   %-4s %s %s\n", e.Action, e.Package, took)
	}
}

// reason is the text of the call that skipped a test: "file:line: text".
func reason(output []string) string {
	for _, l := range output {
		if _, text, ok := strings.Cut(strings.TrimSpace(l), ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
	}
	return "no reason given"
}

func (s *summary) skips(w io.Writer) {
	reasons := make([]string, 0, len(s.reasons))
	for r := range s.reasons {
		reasons = append(reasons, r)
	}
	sort.Slice(reasons, func(i, j int) bool {
		a, b := reasons[i], reasons[j]
		return s.reasons[a] > s.reasons[b] || s.reasons[a] == s.reasons[b] && a < b
	})
	for _, r := range reasons {
		fmt.Fprintf(w, "skipped %d: %s\n", s.reasons[r], r)
	}
}
