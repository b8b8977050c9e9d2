package containerfile

import (
	"sort"
	"strings"
)

// nearest returns the candidate that is most like word, "" when none is near
// enough to be what was meant: one slip for short words, two for words of
// five letters and more. Case does not count.
func nearest(word string, candidates []string) string {
	limit := 1
	if len(word) >= 5 {
		limit = 2
	}
	return nearestWithin(word, candidates, limit)
}

func nearestWithin(word string, candidates []string, limit int) string {
	// Longer words are no spelling mistakes, and the distance is quadratic.
	if len(word) > 64 {
		return ""
	}
	sorted := append([]string(nil), candidates...)
	sort.Strings(sorted)
	best, bestDistance := "", limit+1
	for _, c := range sorted {
		if c == "" || len(c) > 64 {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the optimal string alignment distance in bytes: the number of
// letters to insert, delete, replace or swap with a neighbour.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	current := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(last[j]+1, current[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, last, current = last, current, before
	}
	return last[len(b)]
}

// orNearest writes "; did you mean X?" when something is near, else "".
func orNearest(word string, candidates []string) string {
	if n := nearest(word, candidates); n != "" {
		return "; did you mean " + n + "?"
	}
	return ""
}

// maxCandidates bounds what Nearest compares: it is asked for each mistake.
const maxCandidates = 500

// Nearest returns the candidate that word was probably meant to be, "" when
// none is near enough or there are too many to look at.
func Nearest(word string, candidates []string) string {
	if len(candidates) > maxCandidates {
		return ""
	}
	return nearest(word, candidates)
}
