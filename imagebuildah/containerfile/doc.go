// Package containerfile reads Containerfiles.
//
// BuildKit's parser and typed instructions do the reading; this package is
// the small face in front of them: it bounds what it reads, keeps the place
// of every instruction, names what is wrong as "file:line: instruction: what,
// and the nearest valid spelling", and finds before anything runs what can be
// known to be wrong (unknown stages, cycles, flags and forms).
package containerfile
