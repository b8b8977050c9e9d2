// Package layer turns directories into layers and layers into directories.
//
// Words: a Layer is one link of a chain that makes a root file system; a
// Working is a writable root on top of a chain; freezing a Working ends its
// writing and gives the next Layer at once, while in the background its upper
// directory is read a single time (tar stream, diff ID, tar-split) and then
// renamed into the store. A View is a readable root.
//
// Where the store's driver cannot adopt a directory (not native overlay,
// mount_program, composefs, id-mapped layers), the same calls go through
// containers/storage's own layers and PutLayer.
//
// All mounts are detached or lie in this process's private mount namespace.
package layer
