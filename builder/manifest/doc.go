// Package manifest changes lists of images (OCI image indexes, Docker manifest
// lists) in the store, in the form in which podman and buildah keep them: an
// image record without layers, whose big data "manifest" is the list and whose
// "instances.json" says of each digest of the list where its image is.
//
// A list keeps its ID while it changes, as scripts expect that note it down;
// so the ID says nothing of the content. Changes are made by Update, which
// excludes other strata processes; podman and buildah have locks of their own.
package manifest
