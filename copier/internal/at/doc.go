// Package at wraps the *at system calls that copier lives on: descriptors are
// plain ints, interrupted calls are tried again, and every descriptor made is
// close-on-exec. Nothing here resolves a path of more than one component.
package at
