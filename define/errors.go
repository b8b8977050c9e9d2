package define

import "errors"

// The kinds of failure that callers tell apart. An error that leaves a
// package wraps at most one of them; its text alone is one line that names
// the object, the cause and, where there is one, the remedy.
var (
	// ErrInvalid: the input (a flag, an instruction, a reference) is malformed.
	ErrInvalid = errors.New("invalid input")
	// ErrNotFound: an image, layer, file or registry object does not exist.
	ErrNotFound = errors.New("not found")
	// ErrInUse: the object is held by another process or object.
	ErrInUse = errors.New("in use")
	// ErrUnsupported: this host or this version cannot do it.
	ErrUnsupported = errors.New("not supported")
	// ErrEscape: a name would have left the root it belongs to.
	ErrEscape = errors.New("path leaves its root")
)
