// Package fstree turns a file tree into lines that a person can read, and
// lines into a tree, so that a test's fixture and its expectation are text.
//
// One object is one line, its path first, absolute below the tree's root:
//
//	/bin dir 0755 0:0
//	/bin/sh link 0777 0:0 -> busybox
//	/hello file 0755 0:0 3 bytes
//	/hello2 hard /hello
//	/dev/null char 0666 0:0 1,3
//	/run/pipe fifo 0600 0:0
//	/run/sock socket 0600 0:0
//	/cap file 0755 0:0 9 bytes user.note="hi"
//
// Names and values with blanks or unprintable bytes are Go string literals.
// Dump sorts by path bytes and leaves the root itself out. With Contents a
// file shows what is in it, quoted when it is short and a digest otherwise;
// with Times a modification time follows as @seconds.nanoseconds.
//
// Make reads the same lines. Mode and owner may be left out (0755 for
// directories, 0644 for the rest, the caller's own ids); parents are made as
// needed; a file's content is a quoted string, or "N bytes" of a fixed pattern,
// or "N bytes sparse" for a hole; text after # at the start of a line is a
// comment.
//
// The package imports none of ours.
package fstree
