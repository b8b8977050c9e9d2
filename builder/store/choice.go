package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// Choice says which store Open would open.
type Choice struct {
	GraphRoot, RunRoot string
	// Driver is "" where the library would take the first one that works:
	// overlay, then vfs.
	Driver        string
	DriverOptions []string
	// Blocked is why a directory cannot be adopted as a layer; "" when it can.
	Blocked string
	// Note says what was wrong with a better choice, with the remedy; "" is
	// nothing.
	Note string
	// Faster is what would be faster than the driver vfs, as far as it was found
	// to work here, where that is the driver; "" is nothing.
	Faster string
}

// Choose says which store Open would open, and neither makes nor opens it.
func Choose(o Options) (Choice, error) {
	defer removeMade(runtimeDirs())
	so, note, err := storeOptions(o)
	if err != nil {
		return Choice{}, err
	}
	why := settleDriver(&so)
	c := Choice{
		GraphRoot: so.GraphRoot, RunRoot: so.RunRoot, Driver: so.GraphDriverName, DriverOptions: so.GraphDriverOptions,
		Note: note,
	}
	driver := c.Driver
	if driver == "" {
		driver = "overlay"
	}
	if c.Driver == "vfs" {
		_, c.Faster = fasterThanVfs(c.GraphRoot, why, homes(), overlayWorks)
	}
	c.Blocked = blocked(driver, c.GraphRoot, c.DriverOptions)
	switch {
	case c.Blocked != "":
	case len(so.UIDMap) > 0 || len(so.GIDMap) > 0:
		c.Blocked = mappedStore
	case so.ImageStore != "":
		c.Blocked = secondStore
	}
	return c, nil
}

// runtimeDirs are the directories that are made while a place for a user's
// state is looked for, and which of them are there.
func runtimeDirs() map[string]bool {
	uid := unshare.GetRootlessUID()
	there := map[string]bool{}
	for _, dir := range []string{fmt.Sprintf("/run/user/%d", uid), filepath.Join(os.TempDir(), fmt.Sprintf("storage-run-%d", uid)), fmt.Sprintf(homeless, uid)} {
		_, err := os.Lstat(dir)
		there[dir] = err == nil
	}
	return there
}

func removeMade(before map[string]bool) {
	for dir, was := range before {
		if !was {
			_ = unix.Rmdir(dir) // somebody else may be using it already
		}
	}
}

// homeless is where a user's store goes when there is no home directory that
// can be written. Unlike /tmp, /var/tmp outlives a reboot.
const homeless = "/var/tmp/strata-%d"

// settlePaths gives a user whose default paths cannot be used others, and
// says so. What the user or a storage.conf has chosen stays as it is, and so
// does a store that exists; of them it is said what they cannot keep.
func settlePaths(o Options, so *types.StoreOptions) (note string, err error) {
	if note, err = settleHome(o, so); note != "" || err != nil {
		return note, err
	}
	root := so.GraphRoot
	if o.Root != "" {
		root = o.Root
	}
	if err := unfit(nearest(root), o.SingleID); err != nil {
		return fmt.Sprintf("the store %s cannot keep all of an image: %v: --root on a disk's file system (ext4, xfs, btrfs) can", root, err), nil
	}
	return "", nil
}

func settleHome(o Options, so *types.StoreOptions) (note string, err error) {
	uid := unshare.GetRootlessUID()
	if !unshare.IsRootless() || uid == 0 || o.Root != "" {
		return "", nil
	}
	home, err := unshare.HomeDir()
	if err != nil {
		return "", fmt.Errorf("the home directory of user %d: %w: set HOME, or --root and --runroot", uid, err)
	}
	standard := filepath.Join(home, ".local", "share", "containers", "storage")
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		standard = filepath.Join(d, "containers", "storage")
	}
	if so.GraphRoot != standard {
		return "", nil
	}
	dir := fmt.Sprintf(homeless, uid)
	why := unusable(standard)
	if why == nil {
		if _, err := os.Lstat(standard); err == nil {
			return "", nil // it may hold images
		}
		if why = unfit(nearest(standard), o.SingleID); why == nil || unfit(filepath.Dir(dir), o.SingleID) != nil || ownDir(dir) != nil {
			return "", nil
		}
		so.GraphRoot = filepath.Join(dir, "storage")
		return fmt.Sprintf("images are kept in %s, because %s cannot keep all of them: %v: set --root to a directory on a disk's file system to choose another", so.GraphRoot, standard, why), nil
	}
	if err := ownDir(dir); err != nil {
		return "", fmt.Errorf("images cannot be kept in %s (%w), nor in %s (%w): set HOME, or --root and --runroot: %w", standard, why, dir, err, define.ErrInvalid)
	}
	so.GraphRoot = filepath.Join(dir, "storage")
	return fmt.Sprintf("images are kept in %s, because %s cannot be made (%v): set HOME, or --root, to a directory of yours", so.GraphRoot, standard, why), nil
}

// unusable returns why a directory neither exists nor can be made. One that
// exists is usable, whatever comes of it: the user's images are in it.
func unusable(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	for at := dir; ; at = filepath.Dir(at) {
		err := unix.Access(at, unix.W_OK|unix.X_OK)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return &fs.PathError{Op: "write", Path: at, Err: err}
		}
	}
}

// ownDir makes a directory that is nobody else's. Its name can be guessed: in
// a directory that all may write, somebody else may have been first.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return checkOwn(dir)
}

func checkOwn(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not a directory that only this user may use", dir)
	}
	return nil
}

// What a store as a whole may have that keeps directories from being adopted.
const (
	mappedStore = "a store with id mappings"
	secondStore = "storage option imagestore"
)

// blocked returns why the driver, its options or what it left on the disk
// keep a directory from becoming a layer by rename; "" is nothing.
func blocked(driver, root string, options []string) string {
	if driver != "overlay" {
		return "storage driver " + driver
	}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		key = key[strings.LastIndex(key, ".")+1:]
		value = strings.TrimSpace(value)
		switch {
		case key == "mount_program" && value != "":
			return "storage option mount_program"
		case key == "force_mask" && value != "":
			return "storage option force_mask"
		case key == "use_composefs" && value != "" && value != "false":
			return "storage option use_composefs"
		}
	}
	if b, err := os.ReadFile(filepath.Join(root, "overlay", ".has-mount-program")); err == nil && strings.TrimSpace(string(b)) == "true" {
		return "a store made with a mount_program"
	}
	return ""
}

// mayMount reports CAP_SYS_ADMIN, without which nothing can be mounted.
func mayMount() bool {
	may, err := unshare.HasCapSysAdmin()
	return may || err != nil
}
