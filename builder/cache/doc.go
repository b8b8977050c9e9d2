// Package cache finds the result of a step that was executed before.
//
// A Key is a list of named parts (parent, instruction, each variable, each
// file...). Its digest finds a Record in one look-up, whatever the number of
// images and records. Because records keep their parts, a miss can be
// explained: the first part that differs from the nearest earlier build.
//
// Records live below the store's state directory, one file each, written by
// rename. A record whose layer is gone from the store is no hit. The cache
// never looks at images: nothing that an image claims of itself can make a
// hit (CVE-2024-24557).
package cache
