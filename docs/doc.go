// Package docs makes the reference documentation from the command tree:
// docs/reference/*.md and docs/man/*.1. Guides and design texts are written
// by hand; lists of flags never are.
//
// Generate returns what the files should hold; gen writes them, and a test
// fails when the tree differs.
package docs

//go:generate go run ./gen
