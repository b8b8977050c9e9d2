package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// compare prints two reports side by side, row by row: times, and how often
// the old value of each measure fits into the new one.
func compare(w io.Writer, oldFile, newFile string) error {
	var reports [2]report
	for i, name := range []string{oldFile, newFile} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &reports[i]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if reports[0].Machine != reports[1].Machine {
		fmt.Fprintf(w, "old: %s\nnew: %s\n\n", reports[0].Machine, reports[1].Machine)
	}
	measures := []func(result) float64{
		func(x result) float64 { return x.Median },
		func(x result) float64 { return float64(x.Memory) },
		func(x result) float64 { return x.CPU },
		func(x result) float64 { return float64(x.Written) },
		func(x result) float64 { return float64(x.Calls) },
	}
	table := [][]string{{"row", "tool", "old", "new", "new / old", "memory", "CPU", "written", "calls"}}
	seconds := func(x result, ok bool) string {
		if !ok {
			return "-"
		}
		return duration(x.Median)
	}
	seen := map[[2]string]bool{}
	for _, r := range reports {
		for _, x := range r.Results {
			key := [2]string{x.Row, x.Tool}
			if seen[key] || x.Missing != "" {
				continue
			}
			seen[key] = true
			before, okOld := reports[0].find(x.Row, x.Tool)
			after, okNew := reports[1].find(x.Row, x.Tool)
			line := []string{x.Row, x.Tool, seconds(before, okOld), seconds(after, okNew)}
			for _, m := range measures {
				ratio := "-"
				if m(before) > 0 && m(after) > 0 {
					ratio = fmt.Sprintf("%.2f x", m(after)/m(before))
				}
				line = append(line, ratio)
			}
			table = append(table, line)
		}
	}
	align(w, table)
	return nil
}
