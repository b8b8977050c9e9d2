package runmount

import (
	"errors"
	"fmt"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// explain says of a mount that the kernel refuses what would allow it: that is
// how it is in containers without CAP_SYS_ADMIN. What was being done is then
// no matter.
func explain(doing string, err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("this host allows no mounts: give strata CAP_SYS_ADMIN or user namespaces: %w: %w", err, define.ErrUnsupported)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
