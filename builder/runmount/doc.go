// Package runmount makes the sources of RUN --mount: cache directories that
// outlive builds, tmpfs file systems, secrets, sub-trees of other roots and
// copies of them whose changes are thrown away, and sockets of SSH agents.
//
// What it makes are open trees (descriptors of detached mounts), for
// isolation.Volume. Nothing is mounted in a namespace that anybody sees: a
// tree goes when its last descriptor is closed.
//
// Every name that a Containerfile gives is resolved by descriptor: the id of a
// cache only as a digest, the sub-path of a cache component by component
// without following links, the source of a bind mount by the copier.Root that
// it lies in. What is swapped afterwards changes nothing, since the mount has
// been made of the descriptor.
//
// Cache directories lie below the store's state directory:
//
//	mounts/DIGEST/N       the directory that steps see
//	mounts/DIGEST/N.lock  flock(2): shared or exclusive while a step uses it;
//	                      its modification time is the last use
//	mounts/DIGEST/N.new   one that is being made
//
// N is 0 but for sharing=private, where each concurrent step has a number of
// its own. Locks end with the process that holds them.
package runmount
