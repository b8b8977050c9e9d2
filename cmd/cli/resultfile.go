package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// resultFile is a file that a flag names for a result (--iidfile, ...). It is
// checked before the work begins and written in one step after it, so that
// nobody ever reads half of one.
type resultFile struct{ flag, path string }

// check fails early when the file's directory does not exist or the name is
// a directory. A regular file of an earlier run is removed, as docker does:
// what is there after a failure must not look like a result.
func (r resultFile) check() error {
	if r.path == "" {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(r.path))
	if err != nil {
		return fmt.Errorf("--%s: %w", r.flag, err)
	}
	if !dir.IsDir() {
		return fmt.Errorf("--%s: %s is not a directory", r.flag, filepath.Dir(r.path))
	}
	fi, err := os.Lstat(r.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--%s: %w", r.flag, err)
	case fi.IsDir():
		return fmt.Errorf("--%s: %s is a directory", r.flag, r.path)
	case fi.Mode().IsRegular():
		// A worker and the process that it was started by both look here.
		if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("--%s: %w", r.flag, err)
		}
	}
	return nil
}

// write writes data beside the file and renames it. What is no regular file
// (/dev/stdout, a FIFO, a symbolic link to one) is written to directly.
func (r resultFile) write(data []byte) error {
	if r.path == "" {
		return nil
	}
	if err := writeAtomic(r.path, data); err != nil {
		return fmt.Errorf("--%s: %w", r.flag, err)
	}
	return nil
}

func writeAtomic(path string, data []byte) error {
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return os.WriteFile(path, data, 0o644)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644 &^ umask())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
