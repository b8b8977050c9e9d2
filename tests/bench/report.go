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
	// Missing is why there is nothing else.
	Missing string `json:"missing,omitempty"`
	// Seconds holds all runs but the first. It is empty where the rest was
	// computed from other rows.
	Seconds []float64 `json:"seconds,omitempty"`
	Median  float64   `json:"median"`
	// RSS is the largest resident set of one process in the timed runs, Memory
	// what all processes held together, at most, in a run of its own; bytes,
	// 0: not known.
	RSS    int64 `json:"maxRSS"`
	Memory int64 `json:"memory,omitempty"`
	// CPU and Written are medians: seconds of processor time of the processes
	// that were waited for (0: not known), and bytes that went to the disk
	// (less than 0: not known).
	CPU     float64 `json:"cpuSeconds"`
	Written int64   `json:"bytesWritten"`
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
	Left     []string          `json:"leftOut,omitempty"` // tools, and why
	Runs     int               `json:"runs"`
	Disk     string            `json:"written"` // what bytesWritten are
	Results  []result          `json:"results"`

	tools []string
}

// find returns what a tool did in a row, unless it has nothing there.
func (r *report) find(row, tool string) (result, bool) {
	i := slices.IndexFunc(r.Results, func(x result) bool { return x.Row == row && x.Tool == tool && x.Missing == "" })
	if i < 0 {
		return result{}, false
	}
	return r.Results[i], true
}

// derive adds rows that are computed: what one step more costs, from the
// start of one to the start of the next, without what a build costs once.
func (r *report) derive(s scale) {
	more := s.manySteps - s.steps
	for _, of := range []struct {
		name string
		row  func(int) string
	}{{"one RUN step more", stepsRow}, {"one cached RUN step more", cachedStepsRow}} {
		for _, t := range r.tools {
			few, ok1 := r.find(of.row(s.steps), t)
			many, ok2 := r.find(of.row(s.manySteps), t)
			if !ok1 || !ok2 || more <= 0 {
				continue
			}
			x := result{
				Row:    fmt.Sprintf("%s: (%d RUN - %d RUN) / %d", of.name, s.manySteps, s.steps, more),
				Tool:   t,
				Median: (many.Median - few.Median) / float64(more),
				CPU:    max(0, many.CPU-few.CPU) / float64(more), Written: -1,
			}
			if many.Written >= 0 && few.Written >= 0 {
				x.Written = max(0, many.Written-few.Written) / int64(more)
			}
			if many.Calls > 0 && few.Calls > 0 {
				x.Calls = (many.Calls - few.Calls) / int64(more)
			}
			r.Results = append(r.Results, x)
		}
	}
}

// column is a group of columns, one for each tool.
type column struct {
	name string
	cell func(result) string // "" is not known
}

// columns are those that have something to show.
func (r *report) columns() []column {
	all := []column{
		{"memory", func(x result) string { return known(x.Memory > 0, mebibytes(x.Memory)) }},
		{"CPU", func(x result) string { return known(x.CPU > 0, duration(x.CPU)) }},
		{"written", func(x result) string { return known(x.Written >= 0, mebibytes(x.Written)) }},
		{"calls", func(x result) string { return known(x.Calls > 0, fmt.Sprint(x.Calls)) }},
	}
	if !slices.ContainsFunc(r.Results, func(x result) bool { return x.Memory > 0 }) {
		all[0] = column{"RSS", func(x result) string { return known(x.RSS > 0, mebibytes(x.RSS)) }}
	}
	return slices.DeleteFunc(all, func(c column) bool {
		return !slices.ContainsFunc(r.Results, func(x result) bool { return x.Missing == "" && c.cell(x) != "" })
	})
}

func mebibytes(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d MiB", (n+1<<19)>>20)
}

// duration shows seconds so that three digits count.
func duration(seconds float64) string {
	switch {
	case seconds > -0.1 && seconds < 0.1:
		return fmt.Sprintf("%.2f ms", seconds*1000)
	case seconds < 1:
		return fmt.Sprintf("%.1f ms", seconds*1000)
	}
	return fmt.Sprintf("%.3f s", seconds)
}

// known is a value, or "" where it was not measured.
func known(ok bool, value string) string {
	if !ok {
		return ""
	}
	return value
}

// print draws the table: a column of medians for each tool, how often strata
// fits into the others' times, and which part of the yardstick's it needs,
// then memory and the like; below it what is missing, and why.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\nmedian of %d runs, of %d where one takes longer than %d s\n", r.Machine, r.Runs, min(r.Runs, slowRuns), slowRun)
	for _, t := range r.tools {
		fmt.Fprintf(w, "%s: %s\n", t, r.Versions[t])
	}
	for _, line := range r.Left {
		fmt.Fprintln(w, line)
	}
	columns := r.columns()
	for _, c := range columns {
		switch c.name {
		case "memory":
			fmt.Fprintf(w, "memory: of all processes together, a daemon's too, the most of looks %v apart, in a run of its own (proportional set sizes)\n", sampleEvery)
		case "RSS":
			fmt.Fprintln(w, "RSS: the largest resident set of one process")
		case "written":
			fmt.Fprintf(w, "written: %s\n", r.Disk)
		}
	}
	fmt.Fprintln(w)
	var rows []string
	for _, x := range r.Results {
		if !slices.Contains(rows, x.Row) {
			rows = append(rows, x.Row)
		}
	}
	table := [][]string{r.head(columns)}
	for _, row := range rows {
		table = append(table, r.line(row, columns))
	}
	align(w, table)
	r.explain(w)
}

// others are the tools that strata is compared with.
func (r *report) others() []string {
	if !slices.Contains(r.tools, "strata") {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.tools), func(t string) bool { return t == "strata" })
}

// inverse reports the tool whose time is what strata's is a part of.
func inverse(tool string) bool { return tool == "yardstick" }

func (r *report) head(columns []column) []string {
	head := append([]string{"row"}, r.tools...)
	for _, t := range r.others() {
		if inverse(t) {
			head = append(head, "strata / "+t)
			continue
		}
		head = append(head, t+" / strata")
	}
	if r.users() {
		head = append(head, userTool+" - strata")
	}
	for _, c := range columns {
		for _, t := range r.tools {
			head = append(head, t+" "+c.name)
		}
	}
	return head
}

func (r *report) line(row string, columns []column) []string {
	line := []string{row}
	cell := func(tool string, f func(result) string) {
		text := ""
		if x, ok := r.find(row, tool); ok {
			text = f(x)
		}
		if text == "" {
			text = "-"
		}
		line = append(line, text)
	}
	for _, t := range r.tools {
		cell(t, func(x result) string { return duration(x.Median) })
	}
	strata, ok := r.find(row, "strata")
	for _, t := range r.others() {
		cell(t, func(x result) string {
			over, under := x.Median, strata.Median
			if inverse(t) {
				over, under = under, over
			}
			return known(ok && under > 0, fmt.Sprintf("%.2f x", over/under))
		})
	}
	if r.users() {
		cell(userTool, func(x result) string { return known(ok, fmt.Sprintf("%.1f ms", (x.Median-strata.Median)*1000)) })
	}
	for _, c := range columns {
		for _, t := range r.tools {
			cell(t, c.cell)
		}
	}
	return line
}

// users reports whether strata ran as root and as a user, whose difference is
// what a user namespace costs.
func (r *report) users() bool {
	return slices.Contains(r.tools, "strata") && slices.Contains(r.tools, userTool)
}

// explain says why tools have no time in rows.
func (r *report) explain(w io.Writer) {
	type reason struct{ tool, why string }
	var order []reason
	rows := map[reason][]string{}
	for _, t := range r.tools {
		for _, x := range r.Results {
			if x.Tool != t || x.Missing == "" {
				continue
			}
			k := reason{t, x.Missing}
			if rows[k] == nil {
				order = append(order, k)
			}
			rows[k] = append(rows[k], x.Row)
		}
	}
	if len(order) > 0 {
		fmt.Fprintln(w, "\nmissing:")
	}
	for _, k := range order {
		fmt.Fprintf(w, "%s: %s: %s\n", k.tool, strings.Join(strings.Fields(k.why), " "), strings.Join(rows[k], "; "))
	}
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
