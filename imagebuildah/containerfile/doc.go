// Package containerfile reads Containerfiles.
//
// BuildKit's parser and typed instructions do the reading; this package is
// the small face in front of them: it bounds what it reads, keeps the place
// of every instruction, names what is wrong as "file:line: instruction: what,
// and the nearest valid spelling", and finds before anything runs what can be
// known to be wrong (unknown stages, cycles, flags and forms).
//
//	f, err := containerfile.Parse("Containerfile", content)
//	g, err := f.Graph("", global.Expand)
//	for _, stage := range g.Needed { ... f.Stages[stage].Instructions ... }
//
// It refuses: NUL bytes, invalid UTF-8 outside comments, files above MaxSize
// or MaxInstructions, and nesting that only an attack needs. It fetches
// nothing: "# syntax=" is a notice. No input makes it panic: what BuildKit's
// code cannot bear is either refused beforehand or caught.
package containerfile
