// Package resolve turns a hostile path into a descriptor without leaving a
// root directory.
//
// openat2(2) with RESOLVE_IN_ROOT (Linux 5.6) does it in one call, atomically.
// Where it is missing, or a seccomp filter hides it, a walk does the same by
// hand: each component is opened with O_PATH|O_NOFOLLOW relative to the
// descriptor before it, symbolic links are read from their own descriptor and
// expanded inside the root, and ".." goes back to the descriptor it came from
// rather than to whatever the directory's parent is by now. Both follow at
// most 40 links and refuse the magic links of procfs.
//
// The walk is also what creates: MkdirAll and Target need to know each
// directory on the way.
package resolve
