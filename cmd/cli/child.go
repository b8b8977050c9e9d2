package cli

import "go.podman.io/storage/pkg/reexec"

// Child runs what this process was started for when it is a child of another
// strata process, and reports whether it was. It is the first thing main
// does; the steps' own init is earlier still
// (builder/isolation/embedded/early).
func Child() bool {
	// containers/storage starts us under names of its own to unpack layers
	// in a changed root.
	return reexec.Init()
}
