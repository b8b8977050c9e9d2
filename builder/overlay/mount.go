package overlay

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// MaxLowers is the largest number of lower directories of one mount: the
// kernel takes 500 layers (OVL_MAX_STACK), of which one is the upper's.
const MaxLowers = 499

// Options describes an overlay mount.
type Options struct {
	// Lowers are the lower directories, topmost first. Like Upper and Work they
	// lie on mounts of this process's mount namespace. At least one is needed
	// with an Upper, at least two without; at most MaxLowers.
	Lowers []*os.File
	// Upper and Work make the mount writable; both nil: it is read-only. They
	// are fresh directories on one mount (a Scratch has them).
	Upper, Work *os.File
	// UserXattr keeps overlay's marks in user.overlay.* attributes, as a user
	// namespace needs it (Linux 5.11).
	UserXattr bool
	// Map shows owners through an id map; nil: as they are.
	Map *IDMap
}

// Mount mounts and returns the detached mount's root. Writable mounts are
// volatile (they sync nothing when unmounted: builds sync once, at their
// end), and never write metacopy or redirect attributes, so that an upper
// directory is complete in itself. The descriptors of o are not needed any
// more when Mount returns.
//
// Errors wrap define.ErrUnsupported when the kernel or missing privileges
// forbid the mount, and define.ErrInvalid when there are too many lowers.
func Mount(o Options) (*os.File, error) {
	if n := len(o.Lowers); n > MaxLowers {
		return nil, fmt.Errorf("overlay mount: %d layers, the kernel's limit is %d: flatten the image with --squash: %w", n, MaxLowers, define.ErrInvalid)
	}
	if o.Map != nil {
		return mountMapped(o)
	}
	if !legacyOnly.Load() {
		f, err := mountDetached(o)
		if !errors.Is(err, errOldKernel) {
			return f, err
		}
		f, legacyErr := mountLegacy(o)
		if legacyErr != nil {
			return nil, legacyErr
		}
		legacyOnly.Store(true)
		return f, nil
	}
	return mountLegacy(o)
}

var (
	// legacyOnly is set once this kernel refused the appending lowerdir+ and
	// the old way then worked.
	legacyOnly atomic.Bool
	// byPath is set once this kernel refused directories by descriptor.
	byPath atomic.Bool

	errOldKernel = errors.New("kernel without lowerdir+")
)

// baseOptions are set on every writable mount. redirect_dir is "nofollow", not
// "off": kernels built with OVERLAY_FS_REDIRECT_ALWAYS_FOLLOW turn the latter
// into "follow".
var baseOptions = [...][2]string{{"redirect_dir", "nofollow"}, {"index", "off"}, {"metacopy", "off"}, {"xino", "off"}}

func mountDetached(o Options) (*os.File, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, explain("fsopen", err, "")
	}
	defer unix.Close(fs)
	fail := func(what string, err error) error { return explain(what, err, messages(fs)) }

	for _, l := range o.Lowers {
		if err := setDir(fs, "lowerdir+", l); err != nil {
			// EINVAL: Linux 6.5 and 6.6 do not know the option. EOPNOTSUPP:
			// before, overlay has options of the old kind only.
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
				return nil, errOldKernel
			}
			return nil, fail("lowerdir+", err)
		}
	}
	if o.Upper != nil {
		if err := setDir(fs, "upperdir", o.Upper); err != nil {
			return nil, fail("upperdir", err)
		}
		if err := setDir(fs, "workdir", o.Work); err != nil {
			return nil, fail("workdir", err)
		}
		if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
			return nil, fail("volatile", err)
		}
	}
	for _, kv := range baseOptions {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return nil, fail(kv[0], err)
		}
	}
	if o.UserXattr {
		if err := unix.FsconfigSetFlag(fs, "userxattr"); err != nil {
			return nil, fail("userxattr", err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fail("create", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes(o))
	if err != nil {
		return nil, fail("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

// attributes returns the mount attributes: what is only read from is also
// protected from being executed with privileges.
func attributes(o Options) int {
	if o.Upper == nil {
		return unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	}
	return 0
}

// setDir sets a directory option by descriptor (Linux 6.13), or by the name
// that procfs gives it.
func setDir(fs int, key string, dir *os.File) error {
	fd := int(dir.Fd())
	if !byPath.Load() {
		err := unix.FsconfigSetFd(fs, key, fd)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		if err := unix.FsconfigSetString(fs, key, "/proc/self/fd/"+strconv.Itoa(fd)); err != nil {
			return err
		}
		byPath.Store(true)
		return nil
	}
	return unix.FsconfigSetString(fs, key, "/proc/self/fd/"+strconv.Itoa(fd))
}

// messages reads what the kernel logged on a file system context.
func messages(fs int) string {
	var all []string
	buf := make([]byte, 512)
	for len(all) < 8 {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		m := strings.TrimSpace(string(buf[:n]))
		if len(m) > 2 && m[1] == ' ' {
			m = m[2:] // "e ", "w ", "i ": the level
		}
		all = append(all, m)
	}
	return strings.Join(all, "; ")
}

// explain says what is missing for an overlay mount.
func explain(what string, err error, log string) error {
	if log != "" {
		log = " (" + log + ")"
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("overlay mount: %s: %w%s: CAP_SYS_ADMIN is missing, run as root or in a user namespace, or use --storage-driver vfs: %w", what, err, log, define.ErrUnsupported)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("overlay mount: %s: %w%s: the kernel has no overlay file system, load the module or use --storage-driver vfs: %w", what, err, log, define.ErrUnsupported)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("overlay mount: %s: %w: Linux 5.2 or a seccomp profile with the mount calls is needed, or use --storage-driver vfs: %w", what, err, define.ErrUnsupported)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("overlay mount: %s: %w%s: this kernel or the file system below the store does not support it: %w", what, err, log, define.ErrUnsupported)
	}
	return fmt.Errorf("overlay mount: %s: %w%s", what, err, log)
}
