package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// result is a row as one tool did it.
type result struct {
	Row  string `json:"row"`
	Tool string `json:"tool"`
	// Seconds holds all runs but the first.
	Seconds []float64 `json:"seconds"`
	Median  float64   `json:"median"`
	RSS     int64     `json:"maxRSS"` // bytes
	// CPU and Written are medians: seconds of processor time of the processes
	// that were waited for, and bytes that went to the disk (0: not known).
	CPU     float64 `json:"cpuSeconds"`
	Written int64   `json:"bytesWritten,omitempty"`
	// Calls are the system calls of one more run (0: not counted).
	Calls int64 `json:"systemCalls,omitempty"`

	cpu, written []float64
}

func (r *result) add(m measurement) {
	r.Seconds = append(r.Seconds, m.Seconds)
	r.RSS = max(r.RSS, m.RSS)
	r.cpu = append(r.cpu, m.CPU)
	r.written = append(r.written, float64(m.Written))
}

func (r result) summed() result {
	r.Median, r.CPU, r.Written = median(r.Seconds), median(r.cpu), int64(median(r.written))
	return r
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// report is what bench found out.
type report struct {
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Runs     int               `json:"runs"`
	Results  []result          `json:"results"`

	tools []string
}

func (r *report) find(row, tool string) (result, bool) {
	i := slices.IndexFunc(r.Results, func(x result) bool { return x.Row == row && x.Tool == tool })
	if i < 0 {
		return result{}, false
	}
	return r.Results[i], true
}

// print draws the table: a column of medians for each tool, how often strata
// fits into the others' times, then memory.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\nmedian of %d runs\n", r.Machine, r.Runs)
	for _, t := range r.tools {
		fmt.Fprintf(w, "%s: %s\n", t, r.Versions[t])
	}
	fmt.Fprintln(w)
	var rows []string
	for _, x := range r.Results {
		if !slices.Contains(rows, x.Row) {
			rows = append(rows, x.Row)
		}
	}
	table := [][]string{r.head()}
	for _, row := range rows {
		table = append(table, r.line(row))
	}
	align(w, table)
}

// others are the tools that strata is compared with.
func (r *report) others() []string {
	if !slices.Contains(r.tools, "strata") {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.tools), func(t string) bool { return t == "strata" })
}

func (r *report) head() []string {
	head := append([]string{"row"}, r.tools...)
	for _, t := range r.others() {
		head = append(head, t+" / strata")
	}
	if r.users() {
		head = append(head, userTool+" - strata")
	}
	for _, t := range r.tools {
		head = append(head, t+" RSS")
	}
	for _, t := range r.tools {
		head = append(head, t+" CPU")
	}
	if r.disk() {
		for _, t := range r.tools {
			head = append(head, t+" written")
		}
	}
	if r.calls() {
		for _, t := range r.tools {
			head = append(head, t+" calls")
		}
	}
	return head
}

func (r *report) line(row string) []string {
	line := []string{row}
	for _, t := range r.tools {
		line = append(line, r.cell(row, t, func(x result) string { return fmt.Sprintf("%.3f s", x.Median) }))
	}
	strata, ok := r.find(row, "strata")
	for _, t := range r.others() {
		line = append(line, r.cell(row, t, func(x result) string {
			if !ok || strata.Median == 0 {
				return "-"
			}
			return fmt.Sprintf("%.2f x", x.Median/strata.Median)
		}))
	}
	if r.users() {
		line = append(line, r.cell(row, userTool, func(x result) string { return known(ok, "%.1f ms", (x.Median-strata.Median)*1000) }))
	}
	for _, t := range r.tools {
		line = append(line, r.cell(row, t, func(x result) string { return known(x.RSS > 0, "%d MiB", (x.RSS+1<<19)>>20) }))
	}
	for _, t := range r.tools {
		line = append(line, r.cell(row, t, func(x result) string { return known(x.RSS > 0, "%.3f s", x.CPU) }))
	}
	if r.disk() {
		for _, t := range r.tools {
			line = append(line, r.cell(row, t, func(x result) string { return fmt.Sprintf("%d MiB", (x.Written+1<<19)>>20) }))
		}
	}
	if r.calls() {
		for _, t := range r.tools {
			line = append(line, r.cell(row, t, func(x result) string { return known(x.Calls > 0, "%d", x.Calls) }))
		}
	}
	return line
}

// users reports whether strata ran as root and as a user, whose difference is
// what a user namespace costs.
func (r *report) users() bool {
	return slices.Contains(r.tools, "strata") && slices.Contains(r.tools, userTool)
}

// known is a value, or a dash where it was not measured.
func known(ok bool, format string, value any) string {
	if !ok {
		return "-"
	}
	return fmt.Sprintf(format, value)
}

// calls reports whether system calls were counted.
func (r *report) calls() bool {
	return slices.ContainsFunc(r.Results, func(x result) bool { return x.Calls > 0 })
}

// disk reports whether it is known what went to the disk.
func (r *report) disk() bool {
	return slices.ContainsFunc(r.Results, func(x result) bool { return x.Written > 0 })
}

func (r *report) cell(row, tool string, f func(result) string) string {
	if x, ok := r.find(row, tool); ok {
		return f(x)
	}
	return "-"
}

// align prints a table, the first column to the left, numbers to the right.
func align(w io.Writer, table [][]string) {
	widths := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range table {
		var b strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i == 0:
				b.WriteString(cell + pad)
			default:
				b.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
