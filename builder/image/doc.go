// Package image holds image configs, manifests and histories as values.
//
// An Image is what instructions change: the OCI config with the fields that
// Docker added to it (HEALTHCHECK, ONBUILD, SHELL) beside it. Encode turns it
// into the exact bytes of either format; Load and Record move them from and
// to the store in the layout that containers/image uses there, so that
// podman, buildah and skopeo read them. The package does no other I/O.
//
// Both formats carry HEALTHCHECK, ONBUILD and SHELL in the config's "config"
// object under Docker's names. The OCI image specification reserves no names
// for them but asks implementations to ignore what they do not know, and
// BuildKit writes and every common engine reads them there; so nothing is
// lost on the way to OCI. Docker's manifest has no place for annotations.
//
// Encoding is deterministic: equal values give equal bytes, on any host.
// Documents are bounded at MaxDocument bytes in both directions.
package image
