package store

import (
	"errors"
	"fmt"
	"io/fs"
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
