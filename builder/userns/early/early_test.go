package early

import "testing"

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"strata", "build", "."}, "build"},
		{[]string{"strata", "--root", "/r", "--runroot=/rr", "--log-level", "debug", "build"}, "build"},
		{[]string{"strata", "--unknown", "value", "build"}, "value"},
		{[]string{"strata", "--version"}, ""},
		{[]string{"strata", "--root"}, ""},
	} {
		if got := command(c.args); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}
