// Package store opens the containers/storage store that podman, buildah and
// skopeo use on this machine, and guards strata's own use of it.
//
// It adds three things: one lock per graph root under which layers are
// adopted (ApplyStagedLayer replaces an existing layer silently, so its
// existence is checked under this lock), workspaces (a pin layer that keeps a
// base from being pruned and gives a scratch directory on the right mount),
// and the collection of workspaces that dead processes left. Layers that are
// ready together are adopted together, by the library's driver and in the
// library's order, but with fewer writings of its list (see Adopt).
//
// Nothing of strata's is ever mounted in the host's mount namespace.
package store
