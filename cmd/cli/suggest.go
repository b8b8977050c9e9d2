package cli

import (
	"fmt"
	"strings"

	"github.com/stratabuild/strata/define"
)

// nearest returns the candidate that a mistyped word most likely means, or
// "" when none is close: at most a third of its letters may differ.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+1
	for _, c := range candidates {
		d := define.Distance(word, c, bestDistance)
		if d < bestDistance || d == bestDistance && best == "" && strings.HasPrefix(c, word) {
			best, bestDistance = c, d
		}
	}
	return best
}

// didYouMean is the end of a message about an unknown word.
func didYouMean(word string, candidates []string, mark string) string {
	if n := nearest(word, candidates); n != "" {
		return fmt.Sprintf("; did you mean %s%s?", mark, n)
	}
	return ""
}
