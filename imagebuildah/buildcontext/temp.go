package buildcontext

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tempRoot is the folder for temporary files: dir, TMPDIR or /var/tmp, made
// absolute because a child process may work elsewhere.
func tempRoot(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv("TMPDIR")
	}
	if dir == "" {
		dir = "/var/tmp"
	}
	return filepath.Abs(dir)
}

// makeTemp makes a folder of mode 0700 with an unpredictable name.
func makeTemp(dir string) (string, error) {
	root, err := tempRoot(dir)
	if err != nil {
		return "", fmt.Errorf("temporary folder: %w", err)
	}
	temp, err := os.MkdirTemp(root, "strata-context-")
	if err != nil {
		return "", fmt.Errorf("temporary folder in %s (set TMPDIR to a writable folder): %w", root, bare(err))
	}
	return temp, nil
}

// unnamedFile opens a temporary file without a name: nothing is left of it
// however the process ends.
func unnamedFile(dir string) (*os.File, error) {
	root, err := tempRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	// O_TMPFILE: Linux 3.11, not on every file system (overlay since 6.1).
	fd, err := unix.Open(root, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(root, "(unnamed)")), nil
	}
	f, err := os.CreateTemp(root, "strata-download-")
	if err != nil {
		return nil, fmt.Errorf("temporary file in %s (set TMPDIR to a writable folder): %w", root, bare(err))
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeTree removes a tree of ours, also when an archive made folders that
// its owner may not write.
func removeTree(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			// Lchown-like safety is not needed: d is a directory by lstat and
			// nobody else can enter the 0700 folder above.
			_ = os.Chmod(p, 0o700) //nolint:gosec // a directory
			if err != nil {
				// WalkDir could not read it; the second RemoveAll can.
				return nil
			}
		}
		return nil
	})
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("removing the temporary build context: %w", err)
	}
	return nil
}
