package layer

import (
	"context"
	"os"
)

// Dir returns the space's scratch directory, on the mount of the store's
// driver; what lies in it goes when the space closes. The names "steps",
// "empty" and decimal numbers are the space's own.
func (s *Space) Dir(ctx context.Context) (path string, dir *os.File, err error) {
	return s.ws.Dir(ctx)
}
