package cli

import (
	"fmt"
	"strings"
)

// nearest returns the candidate that a mistyped word most likely means, or
// "" when none is close: at most a third of its letters may differ.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+1
	for _, c := range candidates {
		d := distance(word, c, bestDistance)
		if d < bestDistance || d == bestDistance && best == "" && strings.HasPrefix(c, word) {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters inserted, left out, changed or swapped
// with the next (optimal string alignment); above limit it may be any number
// above limit.
func distance(a, b string, limit int) int {
	if n := len(a) - len(b); n > limit || -n > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// didYouMean is the end of a message about an unknown word.
func didYouMean(word string, candidates []string, mark string) string {
	if n := nearest(word, candidates); n != "" {
		return fmt.Sprintf("; did you mean %s%s?", mark, n)
	}
	return ""
}
