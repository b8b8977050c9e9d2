// Package baseimage makes a base image without any registry: an OCI image
// layout with one image, the host's statically linked busybox and the few
// files that make it a root file system. Builders use it as
// "oci:DIR:busybox".
//
// Equal busybox, equal image: every time in it is fixed. It imports none of
// strata's own packages and no image library.
package baseimage
