// Package imagestore lists and removes the images of the store, for the
// commands images, rmi, prune, history and info.
//
// It looks at records only and reads an image's config when a filter asks for
// it, so that a listing costs the same whatever the images hold. What other
// tools on the same store (podman, buildah, CRI-O) use is never removed
// without being forced.
package imagestore
