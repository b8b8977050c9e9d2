package define

import (
	"cmp"
	"slices"
	"strings"
)

// Nearest returns up to n of the candidates that a mistyped word most likely
// means, best first: at most a third of the word's letters may differ. A
// candidate that begins with the word counts as one letter further.
func Nearest(word string, candidates []string, n int) []string {
	if len(word) > 255 {
		return nil
	}
	type match struct {
		text     string
		distance int
	}
	var found []match
	limit := max(1, len(word)/3)
	for _, c := range candidates {
		d := Distance(word, c, limit)
		if d > limit && word != "" && strings.HasPrefix(c, word) {
			d = limit + 1
		} else if d > limit {
			continue
		}
		found = append(found, match{c, d})
	}
	slices.SortFunc(found, func(a, b match) int {
		return cmp.Or(a.distance-b.distance, strings.Compare(a.text, b.text))
	})
	var out []string
	for _, m := range found[:min(n, len(found))] {
		out = append(out, m.text)
	}
	return out
}

// Distance counts the letters (bytes) that are inserted, left out, replaced or
// swapped with the next between two words: the optimal string alignment.
// Above limit it may be any larger number.
func Distance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		best := i
		for j := 1; j <= len(b); j++ {
			replace := prev[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, prev[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			best = min(best, row[j])
		}
		if best > limit {
			return best
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
