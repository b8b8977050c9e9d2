package builder

import "go.podman.io/storage/pkg/reexec"

// Child runs what this process was started for when it is a child that the
// program started from its own executable, and reports whether it was; the
// program then ends. It must be called first thing in main:
//
//	func main() {
//		if builder.Child() {
//			return
//		}
//
// containers/storage unpacks pulled layers in such a child, with its root
// changed. Steps' own processes never come this far: their init is earlier
// than main (builder/isolation/embedded/early).
func Child() bool { return reexec.Init() }
