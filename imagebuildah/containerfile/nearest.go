package containerfile

import (
	"sort"
	"strings"

	"github.com/stratabuild/strata/define"
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
		if d := define.Distance(strings.ToLower(word), strings.ToLower(c), limit); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
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
