package main

import (
	"fmt"
	"slices"
	"strings"
)

// table writes the document: folders by places, then what was skipped and why.
func table(results []result, unfit map[string]string) []byte {
	var b strings.Builder
	b.WriteString("<!-- Written by make places; run that instead of changing this. -->\n\n# Places\n\n" +
		"The end-to-end scripts (`tests/scripts`) in each kind of place that strata promises to work in. A cell is the number of scripts that\n" +
		"passed, and of those that were skipped there.\n\n| place | what it is |\n|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s |\n", r.place.name, r.place.what)
	}
	b.WriteString("\n| scripts |")
	for _, r := range results {
		fmt.Fprintf(&b, " %s |", r.place.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(results)) + "\n")
	var folders []string
	for _, r := range results {
		for n := range r.scripts {
			if f, _, _ := strings.Cut(n, "/"); !slices.Contains(folders, f) {
				folders = append(folders, f)
			}
		}
	}
	slices.Sort(folders)
	for _, f := range folders {
		fmt.Fprintf(&b, "| %s |", f)
		for _, r := range results {
			fmt.Fprintf(&b, " %s |", r.cell(f))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Skipped\n")
	for _, r := range results {
		reasons := map[string][]string{}
		for _, n := range r.names() {
			if o := r.scripts[n]; o.action != "pass" {
				why := o.reason
				if o.action == "fail" {
					why = "failed"
				}
				reasons[why] = append(reasons[why], n)
			}
		}
		if len(reasons) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n**%s**\n\n", r.place.name)
		var all []string
		for why := range reasons {
			all = append(all, why)
		}
		slices.Sort(all)
		for _, why := range all {
			fmt.Fprintf(&b, "- %s: %s\n", strings.ReplaceAll(why, "|", `\|`), strings.Join(reasons[why], ", "))
		}
	}
	return []byte(b.String())
}

func (r *result) cell(folder string) string {
	counts := map[string]int{}
	for n, o := range r.scripts {
		if strings.HasPrefix(n, folder+"/") {
			counts[o.action]++
		}
	}
	parts := []string{fmt.Sprint(counts["pass"])}
	if n := counts["skip"]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", n))
	}
	if n := counts["fail"]; n > 0 {
		parts = append(parts, fmt.Sprintf("**%d failed**", n))
	}
	return strings.Join(parts, ", ")
}
