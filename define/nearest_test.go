package define

import (
	"reflect"
	"testing"
)

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"abc", "xbc", 1}, {"abc", "xyz", 3}, {"kitten", "sitting", 3}} {
		if got := Distance(c.a, c.b, 10); got != c.want {
			t.Errorf("%q, %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
	if got := Distance("abcdefgh", "zyxwvuts", 2); got <= 2 {
		t.Errorf("above the limit: %d", got)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	all := []string{"alpine-working-container", "alpine-working-container-1", "debian"}
	for _, c := range []struct {
		word string
		want []string
	}{
		{"debain", []string{"debian"}},
		{"alpine-working-containre", []string{"alpine-working-container", "alpine-working-container-1"}},
		{"alpine", []string{"alpine-working-container", "alpine-working-container-1"}},
		{"quite-else", nil},
		{"", nil},
	} {
		if got := Nearest(c.word, all, 3); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.word, got, c.want)
		}
	}
}
