package store

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.podman.io/storage/drivers/overlay"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// fuseDevice is what fuse-overlayfs mounts with (fuse(4)).
const fuseDevice = "/dev/fuse"

// settleDriver chooses vfs where the library would take an overlay that does
// not work: where the kernel mounts none on the store's file system, and
// fuse-overlayfs is not installed or cannot open /dev/fuse, as in most
// containers. why is that, for the user; "" leaves the driver as it is.
// Only a store that is new, or has the driver vfs, is looked at: what is in a
// store of overlay's is not given up.
func settleDriver(so *types.StoreOptions) (why string) {
	switch {
	case so.GraphDriverName == "vfs":
		if !mayMount() {
			return noMounts
		}
		if on(so.GraphRoot, unix.OVERLAYFS_SUPER_MAGIC) {
			return noOverlay(so.GraphRoot)
		}
		return ""
	case so.GraphDriverName != "" || len(so.GraphDriverPriority) > 0 || os.Geteuid() != 0 || hasDriver(so.GraphRoot, "overlay"):
		return ""
	}
	for _, o := range so.GraphDriverOptions {
		if key, _, _ := strings.Cut(o, "="); strings.HasSuffix(key, "mount_program") {
			return ""
		}
	}
	works, err := mountsOverlay(so.GraphRoot)
	if err != nil {
		return ""
	}
	// The library remembers in the run root what it has found out, for any
	// store.
	_ = os.Remove(filepath.Join(so.RunRoot, "overlay", fmt.Sprintf("overlay-%t", !works)))
	if works {
		return ""
	}
	why = noOverlay(so.GraphRoot)
	if _, none := exec.LookPath("fuse-overlayfs"); none == nil {
		err := fuseOpens()
		if err == nil {
			return ""
		}
		why += fmt.Sprintf(", and fuse-overlayfs cannot mount either (%v)", err)
	}
	so.GraphDriverName = "vfs"
	return why
}

// mountsOverlay asks the kernel, as the library asks it, whether there can be
// an overlay on the file system that a store is on or will be. Nothing is
// left there.
func mountsOverlay(root string) (bool, error) {
	dir, err := os.MkdirTemp(nearest(root), ".strata-overlay-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	works, _ := overlay.SupportsNativeOverlay(filepath.Join(dir, "overlay"), filepath.Join(dir, "run"))
	return works, nil
}

func fuseOpens() error {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// noOverlay says that overlay cannot be mounted on the file system of a
// directory.
func noOverlay(dir string) string {
	if on(dir, unix.OVERLAYFS_SUPER_MAGIC) {
		return "it lies on an overlay, on which the kernel mounts no other"
	}
	return "the kernel mounts no overlay on its file system"
}

// noMounts is a reason, too, on any file system.
const noMounts = "this process may mount nothing"

// on reports that a directory lies on a file system of this type.
func on(dir string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == magic
}
