package isolation

import (
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Terminal is a pseudo terminal (pty(7)) that a step's program has as its
// standard three and its controlling terminal, in the place of Step.Stdin,
// Stdout and Stderr. Where one may be asked for, nil is none.
type Terminal struct {
	// Size is the terminal's when the program starts. Its zero value leaves
	// the kernel's, 0 by 0, which programs take for "not known".
	Size TerminalSize
	// Console receives the master side before the program starts. It is called
	// once, on a goroutine of its own, and owns the file: it copies from and to
	// it, changes the size, closes it. Driver.Run waits for it to return;
	// reading master fails with EIO once the step has ended and its output was
	// read.
	Console func(master *os.File)
}

// TerminalSize is a terminal's size in characters.
type TerminalSize struct {
	Rows, Columns uint16
}

// apply says in a document's process what t is; see config.md of the runtime
// specification, "terminal" and "consoleSize".
func (t *Terminal) apply(p *specs.Process) {
	p.Terminal, p.ConsoleSize = t != nil, nil
	if t != nil && t.Size != (TerminalSize{}) {
		p.ConsoleSize = &specs.Box{Height: uint(t.Size.Rows), Width: uint(t.Size.Columns)}
	}
}

// check reports whether t can be used, and whether the document says the same.
func (t *Terminal) check(p *specs.Process) error {
	var same specs.Process
	t.apply(&same)
	switch {
	case t != nil && t.Console == nil:
		return errors.New("step with a terminal that nobody reads: set Terminal.Console")
	case same.Terminal != p.Terminal, same.Terminal && (same.ConsoleSize == nil) != (p.ConsoleSize == nil),
		same.ConsoleSize != nil && *same.ConsoleSize != *p.ConsoleSize:
		return errors.New("step with a terminal that Spec.Terminal and Spec.Process disagree on: change Options.Terminal, not the document")
	}
	return nil
}
