package runmount

import (
	"errors"
	"fmt"
	"os"

	"github.com/stratabuild/strata/builder/store"
	"golang.org/x/sys/unix"
)

// Link makes a tree that is one symbolic link of the text, which lies below
// parent, a directory of ours; remove removes it.
func Link(text string, parent *os.File, name string) (tree *os.File, remove func() error, err error) {
	at := int(parent.Fd())
	if err := unix.Symlinkat(text, at, name); err != nil {
		return nil, nil, fmt.Errorf("make the link %s: %w", name, store.Explain(parent.Name(), err))
	}
	remove = func() error { return unix.Unlinkat(at, name, 0) }
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	if tree, err = Tree(nil, sub); err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return tree, remove, nil
}
