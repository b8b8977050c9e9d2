// Package transport moves images between the store and everywhere else:
// registries, OCI layouts, archives and directories, through
// containers/image.
//
// It resolves names (short names as registries.conf says; docker.io, and a
// note, where no such file lists search registries), applies policy.json
// (accepting where there is none, which is said once), finds credentials in
// the places that podman and docker use, retries what is worth retrying, and
// reports transfers as events. Nothing is asked of the user and nothing is
// printed; containers/image's own log goes to logrus, whose output is the
// program's to choose.
//
// What a registry says is hostile. Digests are verified and manifests,
// configs and tokens bounded by containers/image; control characters never
// reach an error's text; link-local addresses and a step down from HTTPS to
// HTTP are refused wherever a registry points; credentials do not follow a
// redirect to another host. A registry that falls silent is reported and,
// while it owes data, given up.
//
// A push differs from containers/image's own in three ways (see source and
// findPresent): a change of format leaves the config as it is, layers that the
// repository has already are neither compressed nor sent, and others are read
// where they lie (Options.Layer), without a temporary file.
//
// Programs that pull must call reexec.Init of go.podman.io/storage first in
// main: the storage library unpacks layers in a child of theirs.
package transport
