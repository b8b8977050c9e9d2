// Package transport moves images between the store and everywhere else:
// registries, OCI layouts, archives and directories, through
// containers/image.
//
// It resolves names (short names as registries.conf says; a notice and
// docker.io where there is no such file), applies policy.json (accepting
// where there is none, which is said once), finds credentials in the places
// that podman and docker use, retries what is worth retrying, and reports
// transfers as events. Everything a registry says is hostile: sizes are
// bounded, digests verified, and no credential follows a redirect.
package transport
