// Package early is the first process of a container: this program, executed
// again, before anything else of it is initialised.
//
// Go initialises packages in the order of their import paths as soon as their
// dependencies are ready. This one imports only syscall and unsafe, so its
// init function runs about 0.4 ms after the process starts, ahead of nearly
// every other package of the program (some 4 ms of them). It recognises
// itself, and then never returns: it reads a Config from its socket, makes
// the container, and executes the step's program. In every other process it
// costs one failing system call.
//
// A process is an init when descriptor 3 is a Unix stream socket, its name
// (argv[0]) is Name and it has no arguments, and the socket's first bytes are
// the magic number. An environment variable would not do: images set those.
//
// Keep it so: no import but syscall and unsafe, no map literals, no
// goroutines, no standard streams. Everything happens on the main thread,
// with raw system calls, in a process that owns all the namespaces it works
// in.
//
// The root that it works on is hostile. Every mount point is resolved below
// the root's descriptor with openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS)
// and used by descriptor; file systems that are ours (/dev, the masks, the
// small files) are filled through the descriptor of their mount, never by
// path. Kernels before 5.12 (mount_setattr) are not supported.
package early
