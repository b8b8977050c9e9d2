// Package cache finds the result of a step that was executed before.
//
// A Key is a list of named parts (parent, instruction, each variable, each
// file...). Its digest finds a record in one look-up, whatever the number of
// images and records. Because records keep their parts, a miss can be
// explained: the first part that differs from the nearest earlier build.
//
// The cache never looks at images: nothing that an image claims of itself can
// make a hit (CVE-2024-24557). A record whose layer is gone from the store,
// and a record that is damaged, is a miss. Nothing secret may be a part of a
// key: parts are kept on disk as they are.
//
// # On disk
//
// All lies in the directory "cache" below the store's state directory, which
// only the store's owner can enter:
//
//	records/a/<63 hex>    one record, named by its key's digest: a header with
//	                      checksums, the Result, then the parts
//	slots/<64 hex>        the latest key of each step of one build, named by
//	                      the hash of Slot.Build: a log of small entries
//	slots/any             the latest key of each text of a step in any build
//	index/<64 hex>        a FileIndex, named by the hash of its name
//	orphans/<layer>       a layer whose record was replaced, until Prune
//	tmp/                  files being written, and without a name what a
//	                      FileIndex has no room for in memory
//	lock                  flock(2), held shared by running builds
//
// A record that is new is written in place, all that is replaced by rename,
// nothing with fsync: what is incomplete, or what a power cut left in pieces,
// fails its checksum and counts as absent. Readers take no lock. The
// modification time of a record is when it was last used, give or take a
// minute.
//
// Each new file costs an inode, which ext4 may take a millisecond to find
// where many were deleted in the last minutes: hence one file a step.
package cache
