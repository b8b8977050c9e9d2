package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// Options chooses a store; the zero value is the one that podman would use
// (storage.conf, then the library's defaults for root or rootless).
type Options struct {
	Root, RunRoot string
	Driver        string
	DriverOptions []string // "overlay.key=value"
	// ImageStore keeps images apart from the layers of containers, below this
	// directory; "": as storage.conf says.
	ImageStore string
	// Transient keeps what is known of containers in RunRoot, which the next
	// start of the machine empties.
	Transient bool
	// SingleID reports a user namespace that maps one id only; chown errors
	// of pulled layers are then ignored.
	SingleID bool
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	raw      storage.Store
	zeroCopy string // why a directory cannot be adopted; "" when it can
	state    func() (string, error)
	note     func() string

	turn     chan struct{} // held while this process has or waits for the lock
	lockFile *os.File      // opened by the first Lock, guarded by turn

	layers layerIndex

	togetherOnce sync.Once
	together     bool // see AdoptsTogether
}

// Open opens the store, creating it when it does not exist.
//
// The choice is made as podman and buildah make it: storage.conf (or the file
// that CONTAINERS_STORAGE_CONF names), STORAGE_DRIVER and STORAGE_OPTS, with
// per-user paths when the process is not root or when
// _CONTAINERS_ROOTLESS_UID tells that root here is a user outside; then o.
// Where none of them names a driver, the one that the store's images are in
// is taken (some podmans use vfs for users), else overlay where it works. A
// driver in o drops the driver options of storage.conf.
//
// A store that was opened with the same options before is opened by the
// library when something is asked for that it alone knows; its errors then
// come from the methods of Raw.
//
// The library's bind mount of the driver's directory onto itself is left out:
// it would stay in the host's mount namespace, and no mount of strata's needs
// it. Errors wrap define.ErrUnsupported when the driver cannot work here.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := enoughFiles(); err != nil {
		return nil, err
	}
	so, note, err := storeOptions(o)
	if err != nil {
		return nil, err
	}
	why := settleDriver(&so)
	var raw storage.Store
	late, isLate := openLate(so)
	if raw = late; !isLate {
		if raw, err = storage.GetStore(so); err != nil {
			return nil, openError(so, err)
		}
	}
	if why == "" && so.GraphDriverName == "" && raw.GraphDriverName() == "vfs" {
		why = noOverlay(so.GraphRoot)
	}
	s := &Store{raw: raw, turn: make(chan struct{}, 1), note: func() string { return note }}
	s.zeroCopy = adoptable(raw)
	if o.Driver == "" && (so.GraphDriverName == "vfs" || why != "") {
		s.note = sync.OnceValue(func() string { // it mounts, to see what would be faster
			return strings.TrimPrefix(note+"; "+vfsNote(so.GraphRoot, why), "; ")
		})
	}
	s.state = sync.OnceValues(func() (string, error) {
		dir, err := s.makeStateDir()
		if err == nil && !isLate && raw.GraphDriverName() == "overlay" {
			noteOpened(dir, so)
		}
		return dir, err
	})
	return s, nil
}

// storeOptions merges o into what the configuration files and the
// environment say. The note is about paths that could not be used.
func storeOptions(o Options) (so types.StoreOptions, note string, err error) {
	if so, err = types.DefaultStoreOptions(); err != nil {
		return so, "", fmt.Errorf("reading storage.conf: %w", err)
	}
	if note, err = settlePaths(o, &so); err != nil {
		return so, "", err
	}
	so.GraphDriverOptions = append([]string(nil), so.GraphDriverOptions...)
	if o.Root != "" {
		so.GraphRoot = o.Root
	}
	if o.RunRoot != "" {
		so.RunRoot = o.RunRoot
	}
	if o.Driver != "" {
		so.GraphDriverName = o.Driver
		so.GraphDriverOptions = nil
	}
	if len(o.DriverOptions) > 0 {
		so.GraphDriverOptions = append([]string(nil), o.DriverOptions...)
	}
	if o.ImageStore != "" {
		so.ImageStore = o.ImageStore
	}
	if err := knownDriver(so.GraphDriverName); err != nil {
		return so, "", err
	}
	so.TransientStore = so.TransientStore || o.Transient
	for _, p := range []*string{&so.GraphRoot, &so.RunRoot, &so.ImageStore} {
		if p == &so.ImageStore && *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return so, "", err
		}
	}
	if strings.ContainsAny(so.GraphRoot, ":,\\\"") {
		// overlay(5) and the library's own lists separate paths with these.
		return so, "", fmt.Errorf("store %s: the path has a colon, comma, quote or backslash, which overlay mounts cannot express: choose another --root: %w", so.GraphRoot, define.ErrInvalid)
	}
	if so.GraphDriverName == "" && len(so.GraphDriverPriority) == 0 {
		so.GraphDriverName = priorDriver(so.GraphRoot)
		if so.GraphDriverName == "" && !mayMount() {
			// The library would take overlay where fuse-overlayfs is installed,
			// which cannot mount either.
			so.GraphDriverName = "vfs"
		}
	}
	so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.skip_mount_home=true")
	if o.SingleID {
		so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.ignore_chown_errors=true", "vfs.ignore_chown_errors=true")
	}
	return so, note, nil
}

// openError says what stands in the way of opening the store.
func openError(so types.StoreOptions, err error) error {
	where := so.GraphRoot
	err = unrepeated(err)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("opening the store at %s: %w: run as root, in a user namespace (rootless), or choose a --root and --runroot that you own", where, err)
	}
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
	if !full && strings.Contains(err.Error(), "overlay") && !strings.Contains(err.Error(), "unknown option") && so.GraphDriverName != "vfs" {
		return fmt.Errorf("opening the store at %s: %w: --storage-driver vfs works without overlay mounts: %w", where, Explain(where, err), define.ErrUnsupported)
	}
	return fmt.Errorf("opening the store at %s: %w", where, Explain(where, err))
}

// Close releases the store without unmounting what others use.
func (s *Store) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.layers.mu.Lock()
	s.layers.drop()
	s.layers.mu.Unlock()
	if late, ok := s.raw.(*lateStore); ok {
		late.images.close()
	}
	if s.lockFile != nil {
		err := s.lockFile.Close()
		s.lockFile = nil
		return err
	}
	return nil
}

// Note is a sentence for the user about what makes this store slow, with the
// remedy; "" is none.
func (s *Store) Note() string { return s.note() }

// Raw is the containers/storage store.
func (s *Store) Raw() storage.Store { return s.raw }

// StateDir returns the directory below the graph root that is strata's own
// (the build cache's index, locks), made with mode 0700.
func (s *Store) StateDir() (string, error) { return s.state() }

// StateSubdir returns a directory in StateDir, made with mode 0700.
func (s *Store) StateSubdir(name string) (string, error) {
	state, err := s.StateDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(state, name)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making strata's directory in the store: %w", Explain(dir, err))
	}
	return dir, nil
}

func (s *Store) makeStateDir() (string, error) {
	dir := filepath.Join(s.raw.GraphRoot(), "strata")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making strata's directory in the store: %w", Explain(dir, err))
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !fi.IsDir() {
		return "", fmt.Errorf("%s: strata's directory in the store is not a directory: remove it: %w", dir, define.ErrInvalid)
	}
	return dir, nil
}

// ZeroCopy reports whether a frozen upper directory can become a layer by
// rename; when not, the reason says why (driver, mount_program, composefs...).
func (s *Store) ZeroCopy() (ok bool, reason string) { return s.zeroCopy == "", s.zeroCopy }

// UserXattr reports whether overlay keeps its marks in user.overlay.*
// attributes here (mount option userxattr, Linux 5.11) in place of
// trusted.overlay.*: so it is in a user namespace.
func (s *Store) UserXattr() bool { return unshare.IsRootless() }

// adoptable returns why a directory cannot become a layer by rename.
func adoptable(raw storage.Store) string {
	if why := blocked(raw.GraphDriverName(), raw.GraphRoot(), raw.GraphOptions()); why != "" {
		return why
	}
	if len(raw.UIDMap()) > 0 || len(raw.GIDMap()) > 0 {
		return mappedStore
	}
	if raw.ImageStore() != "" {
		return secondStore
	}
	return ""
}

// Sync makes everything written to the store durable: one syncfs(2) of the
// graph root's file system.
func (s *Store) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root := s.raw.GraphRoot()
	dir, err := os.Open(root)
	if err != nil {
		return fmt.Errorf("syncing the store: %w", err)
	}
	defer dir.Close()
	for {
		err = unix.Syncfs(int(dir.Fd()))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("syncing the store: %w", Explain(root, err))
	}
	return nil
}
