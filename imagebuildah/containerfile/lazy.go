package containerfile

import (
	"regexp"
	"sync"
)

// lazy compiles a pattern when it is first used: most runs use none, and every
// start of the process would pay for all.
func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
