package layer

import "context"

// Squash returns a layer on top of base (an ancestor of top, or nil) whose
// content is all that the chain from base to top changed.
func (s *Space) Squash(ctx context.Context, base, top *Layer, o FreezeOptions) (*Layer, error) {
	panic("layer")
}
