package define

import "strings"

// ImageID names an image in the store: the digest of its config as 64
// lower-case hex digits, without the algorithm.
type ImageID string

// Short returns the first 12 digits, the form that listings print.
func (id ImageID) Short() string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}

// WithAlgorithm returns the form "sha256:<64 hex>", as --iidfile holds it.
func (id ImageID) WithAlgorithm() string {
	return "sha256:" + strings.TrimPrefix(string(id), "sha256:")
}

// LayerID names a layer in the store. It is what containers/image derives
// from the chain of diff IDs, so every tool on the same store agrees on it:
// the diff ID's hex for a bottom layer, else sha256(parent ID + "+" + diff ID
// hex).
type LayerID string
