package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage/types"
)

// TestOpenErrorOnce: a file that the library and the kernel name is named once.
func TestOpenErrorOnce(t *testing.T) {
	t.Parallel()
	kernel := &fs.PathError{Op: "open", Path: "/s/storage.lock", Err: fs.ErrPermission}
	err := openError(types.StoreOptions{GraphRoot: "/s"}, fmt.Errorf("open /s/storage.lock: %w", kernel))
	if !strings.HasPrefix(err.Error(), "opening the store at /s: open /s/storage.lock: permission denied: run as root") || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
	for text, want := range map[string]string{"a: b": "a: b", "a: a: b: b: a": "a: b: a", "a": "a"} {
		if got := unrepeated(errors.New(text)).Error(); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestKnownDriver: a driver that does not exist is refused by its name, before
// the library logs and fails.
func TestKnownDriver(t *testing.T) {
	for _, name := range []string{"", "overlay", "overlay2", "vfs", "zfs"} {
		if err := knownDriver(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	_, err := Open(t.Context(), Options{Root: t.TempDir(), RunRoot: t.TempDir(), Driver: "nosuch"})
	if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), `storage driver "nosuch"`) {
		t.Errorf("%v", err)
	}
}

// TestFasterThanVfs: only what would work here is recommended in the place of
// vfs.
func TestFasterThanVfs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	const other = "/proc" // another file system than that of temporary files, which root can write
	const conf, below = `driver = "overlay" below [storage] in storage.conf`, "--root below " + other
	for name, c := range map[string]struct {
		why             string
		works, others   []string
		because, faster string
	}{
		"the store's file system": {works: []string{root}, others: []string{other}, faster: conf},
		"nothing works":           {others: []string{other, root}, because: noOverlay(root)},
		"another one only":        {works: []string{other}, others: []string{root, other}, because: noOverlay(root), faster: below},
		"a reason that is none":   {why: "a reason", works: []string{root}, others: []string{other}, faster: conf},
		"the same one is none":    {why: "a reason", others: []string{root}, because: "a reason"},
		"a reason":                {why: "a reason", works: []string{other}, others: []string{other}, because: "a reason", faster: below},
		"no mounts":               {why: noMounts, works: []string{root, other}, others: []string{other}, because: noMounts, faster: "with CAP_SYS_ADMIN, or where user namespaces can be made, overlay"},
	} {
		if os.Geteuid() != 0 && c.faster == below {
			continue // it cannot be written
		}
		because, faster := fasterThanVfs(root, c.why, c.others, func(dir string) bool { return slices.Contains(c.works, dir) })
		if because != c.because || faster != c.faster {
			t.Errorf("%s: %q, %q; want %q, %q", name, because, faster, c.because, c.faster)
		}
	}
}
