// Package ociread reads OCI image layouts for the tests, independently of the
// code under test: it imports none of strata's packages and no image library,
// verifies every digest and size on the way, and flattens layers into one
// tree as the OCI image specification (layer.md, "Applying Changesets") says.
package ociread
