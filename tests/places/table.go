package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// notRun is what became of a script that a place has no result of.
const notRun = "not run"

// writeTable makes the document of what is kept of all places.
func writeTable(file, dir string, all []string, unfit map[string]string) error {
	var results []result
	for _, p := range places {
		r, err := load(dir, p)
		if err != nil {
			return err
		}
		r.only(all)
		for _, name := range all {
			if _, ok := r.scripts[name]; !ok {
				r.scripts[name] = outcome{Action: notRun}
			}
		}
		results = append(results, r)
	}
	return os.WriteFile(file, table(results, unfit), 0o644)
}

const tableHead = `<!-- Written by make places; run that instead of changing this. -->

# Places

The end-to-end scripts (` + "`tests/scripts`" + `) in each kind of place that strata promises to work in. A number is that of the scripts that
passed; *skipped* are those that need what a place does not have, and say so themselves; *unfit* are those that ran and cannot pass there
(` + "`tests/places/unfit.tsv`" + `); *not run* is what was added since the place was last tried. Each is named with its reason below. More places, with one script each, are in ` + "`tests/scripts/rootless`" + `.

`

// table writes the document: folders by places, then what was skipped and why.
func table(results []result, unfit map[string]string) []byte {
	var b strings.Builder
	b.WriteString(tableHead)
	fmt.Fprintf(&b, "strata %s.\n\n| place | what it is |\n|---|---|\n", strings.Join(versions(results), ", "))
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s |\n", r.place.name, r.place.what)
	}
	b.WriteString("\n| scripts |")
	for _, r := range results {
		fmt.Fprintf(&b, " %s |", r.place.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(results)) + "\n")
	for _, f := range folders(results) {
		fmt.Fprintf(&b, "| %s |", f)
		for _, r := range results {
			fmt.Fprintf(&b, " %s |", r.cell(f+"/", unfit))
		}
		b.WriteString("\n")
	}
	b.WriteString("| **all** |")
	for _, r := range results {
		fmt.Fprintf(&b, " %s |", r.cell("", unfit))
	}
	b.WriteString("\n\n## Skipped and unfit\n")
	for _, r := range results {
		r.exceptions(&b, unfit)
	}
	return []byte(b.String())
}

func folders(results []result) []string {
	var all []string
	for _, r := range results {
		for n := range r.scripts {
			if f, _, _ := strings.Cut(n, "/"); !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	slices.Sort(all)
	return all
}

func versions(results []result) []string {
	var all []string
	for _, r := range results {
		for _, o := range r.scripts {
			if o.Strata != "" && !slices.Contains(all, o.Strata) {
				all = append(all, o.Strata)
			}
		}
	}
	slices.Sort(all)
	return all
}

// exceptions writes which scripts did not pass, by reason.
func (r *result) exceptions(b *strings.Builder, unfit map[string]string) {
	reasons := map[string][]string{}
	for _, n := range r.names() {
		switch o := r.scripts[n]; o.Action {
		case "pass":
		case notRun:
			reasons[notRun] = append(reasons[notRun], n)
		case "skip":
			reasons[o.Reason] = append(reasons[o.Reason], n)
		default:
			why := "**failed**"
			if u := unfit[r.place.name+"\t"+n]; u != "" {
				why = "unfit: " + u
			}
			reasons[why] = append(reasons[why], n)
		}
	}
	if len(reasons) == 0 {
		return
	}
	fmt.Fprintf(b, "\n**%s**\n\n", r.place.name)
	all := make([]string, 0, len(reasons))
	for why := range reasons {
		all = append(all, why)
	}
	slices.Sort(all)
	for _, why := range all {
		fmt.Fprintf(b, "- %s: %s\n", strings.ReplaceAll(why, "|", `\|`), strings.Join(reasons[why], ", "))
	}
}

// cell counts the scripts whose names begin so.
func (r *result) cell(prefix string, unfit map[string]string) string {
	counts := map[string]int{}
	for n, o := range r.scripts {
		if !strings.HasPrefix(n, prefix) {
			continue
		}
		if o.Action == "fail" && unfit[r.place.name+"\t"+n] != "" {
			o.Action = "unfit"
		}
		counts[o.Action]++
	}
	parts := []string{fmt.Sprint(counts["pass"])}
	for _, what := range []string{"skip", "unfit", notRun, "fail"} {
		n := counts[what]
		switch {
		case n == 0:
		case what == "skip":
			parts = append(parts, fmt.Sprintf("%d skipped", n))
		case what == "unfit", what == notRun:
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		default:
			parts = append(parts, fmt.Sprintf("**%d failed**", n))
		}
	}
	return strings.Join(parts, ", ")
}
