package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Explain adds to an error of a full, read-only or failing file system what a
// user needs to know: the path, and how much is free. Other errors, and nil,
// are returned as they are.
func Explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w (%s)", err, free(path, errors.Is(err, unix.EDQUOT)))
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w (%s is on a read-only file system: remount it, or choose another --root and --runroot)", err, path)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w (input/output error below %s: the disk or its file system is failing)", err, path)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w (raise the limit on open files: ulimit -n)", err)
	}
	return err
}

// unrepeated is an error without what its text says twice in a row, as that of
// a library does which names the file that the kernel's error names, too.
func unrepeated(err error) error {
	parts := strings.Split(err.Error(), ": ")
	once := slices.Compact(slices.Clone(parts))
	if len(once) == len(parts) {
		return err
	}
	return &briefError{strings.Join(once, ": "), err}
}

// briefError is an error in fewer words.
type briefError struct {
	text string
	err  error
}

func (e *briefError) Error() string { return e.text }
func (e *briefError) Unwrap() error { return e.err }

// vfsNote is what a user of the driver vfs is told, who has not asked for it;
// why is what keeps overlay from being used, "" when nothing is known that
// does.
func vfsNote(root, why string) string {
	why, faster := fasterThanVfs(root, why, homes(), overlayWorks)
	s := "the store " + root + " uses the driver vfs, which copies the whole root for each step: "
	switch {
	case why == "":
		return s + faster + ", for podman too, is much faster; images have to be built or pulled again"
	case faster == "":
		return s + why + ", and none was found here on which it does"
	}
	return s + why + "; " + faster + " is much faster"
}

func overlayWorks(dir string) bool {
	works, err := mountsOverlay(dir)
	return works && err == nil
}

// fasterThanVfs says what is faster than the driver vfs, and only what works:
// that is tried by works, on the store's file system and on those of others.
// "" is nothing. because is what keeps the store as it is from it.
func fasterThanVfs(root, why string, others []string, works func(dir string) bool) (because, faster string) {
	switch {
	case why == noMounts:
		return why, "with CAP_SYS_ADMIN, or where user namespaces can be made, overlay"
	case works(root):
		return "", `driver = "overlay" below [storage] in storage.conf`
	case why == "":
		why = noOverlay(root)
	}
	for _, dir := range others {
		if otherDisk(dir, root) && works(dir) {
			return why, "--root below " + dir
		}
	}
	return why, ""
}

// homes are directories below which stores are usual.
func homes() []string {
	dirs := []string{"/var/lib", "/var/tmp"}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		dirs = append([]string{home}, dirs...)
	}
	return dirs
}

// otherDisk reports that dir can be written, and is on another file system than
// root and not in memory.
func otherDisk(dir, root string) bool {
	var a, b unix.Stat_t
	return unix.Stat(dir, &a) == nil && unix.Stat(nearest(root), &b) == nil && a.Dev != b.Dev &&
		unix.Access(dir, unix.W_OK|unix.X_OK) == nil && !on(dir, unix.TMPFS_MAGIC) && !on(dir, unix.RAMFS_MAGIC)
}

// builtDrivers are those that this program is built with.
var builtDrivers = []string{"overlay", "vfs", "zfs"}

// knownDriver fails for a driver that there is not: the library would log a
// line of its own before it failed.
func knownDriver(name string) error {
	if name == "" || name == "overlay2" || slices.Contains(builtDrivers, name) { // overlay2: docker's name, which the library takes
		return nil
	}
	return fmt.Errorf("storage driver %q (--storage-driver, STORAGE_DRIVER or storage.conf): want %s: %w", name, strings.Join(builtDrivers[:2], " or "), define.ErrInvalid)
}

// free describes the space that is left on the file system of path, or of
// the nearest directory above it that exists.
func free(path string, quota bool) string {
	var st unix.Statfs_t
	at := path
	for {
		err := unix.Statfs(at, &st)
		if err == nil {
			break
		}
		up := filepath.Dir(at)
		if !errors.Is(err, fs.ErrNotExist) || up == at {
			return path
		}
		at = up
	}
	bytes := st.Bavail * uint64(st.Bsize)
	switch {
	case quota:
		return fmt.Sprintf("%s: the disk quota is used up: remove images, or raise it", path)
	case st.Files > 0 && st.Ffree == 0:
		return fmt.Sprintf("%s: no inodes left, see df -i: remove images or the build cache", path)
	default:
		return fmt.Sprintf("%s: %d bytes free: remove images or the build cache", path, bytes)
	}
}

// fewestFiles is how many open files a store needs. With fewer, the library
// panics where it cannot open a lock.
const fewestFiles = 64

// enoughFiles looks at the limit on open files. Go has raised it as far as it
// may when the program started.
func enoughFiles() error {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Cur < fewestFiles {
		return fmt.Errorf("the limit on open files is %d: raise it to %d at least (ulimit -n 1024; in a container --ulimit nofile=1024): %w",
			l.Cur, fewestFiles, define.ErrUnsupported)
	}
	return nil
}
