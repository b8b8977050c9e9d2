package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// compare prints two reports side by side, row by row.
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
	table := [][]string{{"row", "tool", "old", "new", "new / old"}}
	seconds := func(x result, ok bool) string {
		if !ok {
			return "-"
		}
		return fmt.Sprintf("%.3f s", x.Median)
	}
	seen := map[[2]string]bool{}
	for _, r := range reports {
		for _, x := range r.Results {
			key := [2]string{x.Row, x.Tool}
			if seen[key] {
				continue
			}
			seen[key] = true
			before, okOld := reports[0].find(x.Row, x.Tool)
			after, okNew := reports[1].find(x.Row, x.Tool)
			ratio := "-"
			if okOld && okNew && before.Median > 0 {
				ratio = fmt.Sprintf("%.2f x", after.Median/before.Median)
			}
			table = append(table, []string{x.Row, x.Tool, seconds(before, okOld), seconds(after, okNew), ratio})
		}
	}
	align(w, table)
	return nil
}
