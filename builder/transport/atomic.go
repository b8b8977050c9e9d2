package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
	"golang.org/x/sys/unix"
)

// write calls copy with a reference beside the destination and puts the
// result in its place. A registry does that itself.
func (t target) write(ctx context.Context, sys *types.SystemContext, copy func(types.ImageReference) error) error {
	if t.kind == kindDocker {
		return copy(t.ref)
	}
	path, inner, named := strings.Cut(t.rest, ":")
	if path == "" {
		return fmt.Errorf("destination %s has no path: %w", show(t.name), define.ErrInvalid)
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved // replace what a link names, not the link
	}
	path = filepath.Clean(path)
	// Opening the parent directory as needed is what users expect of tools
	// that write to "out/image.tar"; c/image does so for directories only.
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("destination %s: %w", show(t.name), err)
	}
	beside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()+".tmp")
	refTo := func(path string) (types.ImageReference, error) {
		if named {
			path += ":" + inner
		}
		return parseReference(t.kind, path, t.name)
	}
	var err error
	switch t.kind {
	case kindOCI:
		err = writeLayout(ctx, path, beside, sys, refTo, copy)
	case kindDir:
		err = writeDir(path, beside, refTo, copy)
	default:
		err = writeArchive(path, beside, refTo, copy)
	}
	if err != nil && !errors.As(err, new(*plainError)) {
		return fmt.Errorf("destination %s: %w", show(t.name), err)
	}
	return err
}

type refFunc func(path string) (types.ImageReference, error)

func writeArchive(path, beside string, refTo refFunc, copy func(types.ImageReference) error) error {
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	stream := err == nil && !info.Mode().IsRegular()
	if stream && info.IsDir() {
		return fmt.Errorf("it is a directory, and an archive is a file: %w", define.ErrInvalid)
	}
	if stream { // a pipe or a terminal: nothing to rename there
		beside = filepath.Join(temporaryDir(), "strata-"+rand.Text()+".tar")
	}
	ref, err := refTo(beside)
	if err != nil {
		return err
	}
	defer os.Remove(beside)
	if err := copy(ref); err != nil {
		return err
	}
	if stream {
		return pour(beside, path)
	}
	if info != nil {
		if err := os.Chmod(beside, info.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := syncFile(beside); err != nil {
		return err
	}
	return os.Rename(beside, path)
}

func pour(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// writeDir fills a new directory and exchanges it with the old one, which
// must be empty or of the same kind: containers/image marks it with a file
// named version.
func writeDir(path, beside string, refTo refFunc, copy func(types.ImageReference) error) error {
	entries, err := os.ReadDir(path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(path, "version")); err != nil {
			return fmt.Errorf("it is not empty and holds no image: choose another directory: %w", define.ErrInvalid)
		}
	}
	if err := os.Mkdir(beside, 0o777); err != nil {
		return err
	}
	defer os.RemoveAll(beside) // after the exchange, that is the old one
	ref, err := refTo(beside)
	if err != nil {
		return err
	}
	if err := copy(ref); err != nil {
		return err
	}
	if !exists {
		return os.Rename(beside, path)
	}
	err = unix.Renameat2(unix.AT_FDCWD, beside, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every file system can
		old := beside + ".old"
		if err := os.Rename(path, old); err != nil {
			return err
		}
		if err := os.Rename(beside, path); err != nil {
			return errors.Join(err, os.Rename(old, path))
		}
		return os.RemoveAll(old)
	}
	return err
}

// writeLayout adds an image to a layout, which may hold others. Blobs go
// straight to their place, where they are named by their digests and harm
// nobody; the index is written beside and renamed. Writers of one layout
// take turns, because each replaces the whole index.
func writeLayout(ctx context.Context, path, beside string, sys *types.SystemContext, refTo refFunc, copy func(types.ImageReference) error) (err error) {
	blobs := filepath.Join(path, "blobs")
	_, statErr := os.Lstat(path)
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		return err
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		defer func() {
			if err != nil {
				os.RemoveAll(path)
			}
		}()
	}
	unlock, err := lockDir(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Mkdir(beside, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(beside)
	index, err := os.ReadFile(filepath.Join(path, "index.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(beside, "index.json"), index, 0o644)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if sys.OCISharedBlobDirPath, err = filepath.Abs(blobs); err != nil {
		return err
	}
	ref, err := refTo(beside)
	if err != nil {
		return err
	}
	if err := copy(ref); err != nil {
		return err
	}
	for _, name := range []string{"oci-layout", "index.json"} {
		if err := syncFile(filepath.Join(beside, name)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(beside, name), filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func lockDir(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			dir.Close()
			return nil, fmt.Errorf("locking it: %w", err)
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
