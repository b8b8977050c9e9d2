package copier

import (
	"strings"
	"testing"
)

// TestSelectShowsCleanNames: errors show a source without the pivot of
// --parents.
func TestSelectShowsCleanNames(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, "/d dir\n/d/f file \"x\"\n", false)
	for pattern, want := range map[string]string{
		"/d/./nosuch": "source /d/nosuch: no such file", "/d/./n*": "source /d/n*: no file matches", "d/nosuch": "source d/nosuch: no such file or directory: ",
		"../nosuch": "source ../nosuch: no such file or directory, since .. does not lead out of the root of the sources: ",
	} {
		for _, parents := range []bool{false, true} {
			_, err := r.Select(t.Context(), Select{Patterns: []string{pattern}, Parents: parents})
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s, parents %t: %v, want %s", pattern, parents, err, want)
			}
		}
	}
}
