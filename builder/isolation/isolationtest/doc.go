// Package isolationtest is the suite that every isolation driver passes.
//
//	func TestDriver(t *testing.T) {
//		isolationtest.Run(t, isolationtest.Suite{New: func(t *testing.T) isolation.Driver { ... }})
//	}
//
// It makes roots from a statically linked busybox of the machine's and skips
// where there is none, or where the driver says that it is not available.
package isolationtest
