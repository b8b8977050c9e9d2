package runmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// CopyUp copies what root, a step's root, has in the directory at unsafePath
// into to, the root of a tmpfs. The tmpfs gets the directory's owner and time,
// and its mode unless keepMode. What is not there gives nothing.
func CopyUp(ctx context.Context, root *os.File, unsafePath string, to *os.File, keepMode, ignoreChown bool) error {
	from, err := copier.NewRoot(root)
	if err != nil {
		return err
	}
	defer from.Close()
	if ignoreChown {
		from.RememberOwners(nil)
	}
	info, err := from.Stat(unsafePath, true)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode.IsDir():
		return fmt.Errorf("%s is not a directory: %w", unsafePath, define.ErrInvalid)
	}
	sel, err := from.Select(ctx, copier.Select{Patterns: []string{literal.Replace(unsafePath)}})
	if err != nil {
		return err
	}
	into, err := copier.NewRoot(to)
	if err != nil {
		return err
	}
	err = sel.Put(ctx, into, copier.Put{Dest: "/", IgnoreChownErrors: ignoreChown})
	if err = errors.Join(err, into.Close()); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("%w; the tmpfs is full: give it a larger size=", err)
		}
		return err
	}
	return likeDir(from, unsafePath, to, keepMode, ignoreChown)
}

// likeDir gives to the owner, mode and time of a directory.
func likeDir(from *copier.Root, unsafePath string, to *os.File, keepMode, ignoreChown bool) error {
	dir, err := from.Open(unsafePath, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st, now unix.Stat_t
	if err = unix.Fstat(int(dir.Fd()), &st); err == nil {
		err = unix.Fstat(int(to.Fd()), &now)
	}
	if err != nil {
		return err
	}
	if keepMode {
		st.Mode = now.Mode
	}
	a := FileAttr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}
	if ignoreChown {
		noted, _ := copier.Noted(int(dir.Fd()))
		a.UID, a.GID, a.SingleID = noted.UID, noted.GID, true
	}
	if err := a.apply(int(to.Fd()), "."); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(to.Fd()), ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// literal makes a path a pattern that matches it alone.
var literal = strings.NewReplacer(`\`, `[\\]`, `*`, `[*]`, `?`, `[?]`, `[`, `[[]`)
