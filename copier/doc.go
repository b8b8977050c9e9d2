// Package copier moves files into and out of a root file system without ever
// leaving it.
//
// A Root is a directory held by descriptor. Every name below it is hostile
// until it has been resolved, component by component, inside that root
// (openat2(2) with RESOLVE_IN_ROOT, Linux 5.6; a walk with O_NOFOLLOW where
// openat2 is missing or filtered); what was resolved is then used by
// descriptor, never by name again. No operation opens a FIFO, a socket or a
// device of a tree for reading, and none follows a symbolic link out.
//
// A Selection is the answer to "what would COPY take": Select expands the
// sources of one COPY or ADD against a source root, once. The selection can
// then be digested, for the cache key, and be put below a destination.
//
// The package does not know images, layers or Containerfiles, and it starts
// no process.
package copier
