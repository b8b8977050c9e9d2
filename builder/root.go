package builder

import (
	"errors"
	"os"

	"github.com/stratabuild/strata/copier"
)

// withRoot calls f with dir as a copier.Root.
func withRoot(dir *os.File, f func(*copier.Root) error) error {
	r, err := copier.NewRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}
