//go:build !amd64 && !arm64

package at

import (
	"strings"

	"golang.org/x/sys/unix"
)

// LstatIn is Lstat of the name at the offset in names, which a NUL ends.
func LstatIn(dir int, names string, off uint32, st *unix.Stat_t) error {
	name, _, _ := strings.Cut(names[off:], "\x00")
	return Lstat(dir, name, st)
}
