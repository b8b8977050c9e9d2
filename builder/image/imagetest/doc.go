// Package imagetest makes small images for tests: in a store (Put), as an OCI
// layout on disk (Layout) or as bytes (Spec.Build). They are deterministic:
// equal specs give equal digests.
//
// Packages whose tests put images into a store call Main from their TestMain,
// because the storage library unpacks layers in a child of the test binary.
package imagetest
