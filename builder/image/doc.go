// Package image holds image configs, manifests and histories as values.
//
// An Image is what instructions change: the OCI config with the fields that
// only Docker's format knows (HEALTHCHECK, ONBUILD, SHELL) beside it. Encode
// turns it into the exact bytes of either format; Load and Record move them
// from and to the store in the layout that containers/image uses there, so
// that podman, buildah and skopeo read them. The package does no other I/O.
package image
