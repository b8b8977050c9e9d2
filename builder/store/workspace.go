package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

const (
	// workPrefix starts the name of each workspace, of its lock file and of
	// its pin layers.
	workPrefix = "strata-work-"
	// scratchName is the scratch directory's name beside the pin's diff
	// directory. Nothing else of strata's is ever written into overlay/.
	scratchName = "steps"
	lockSuffix  = ".lock"
)

// Workspace is the scratch space of one build. A pin layer in the store holds
// it, named so that a later process can collect it once this one is dead.
//
// It is safe for concurrent use.
type Workspace struct {
	s *Store

	mu      sync.Mutex
	closed  bool
	name    string
	lock    *os.File // flock(2): held while the process lives
	pins    []string // ids of the pin layers
	pinned  map[define.LayerID]bool
	private string // a directory off the layers
	home    string // where the scratch directory is made; "" beside a pin
	path    string
	dir     *os.File
	layers  int // numbers the names that LayerName gave
}

// NewWorkspace makes a workspace. Nothing is written before the first Pin or
// Dir.
func (s *Store) NewWorkspace() *Workspace {
	return &Workspace{s: s, pinned: map[define.LayerID]bool{}}
}

// NewContainerWorkspace makes a workspace whose scratch directory lies beside
// the writable layer of a container, which is deleted with it. The caller
// holds the container's lock: what an earlier process has left there is
// removed.
func (s *Store) NewContainerWorkspace(layer string) (*Workspace, error) {
	w := s.NewWorkspace()
	if s.zeroCopy != "" {
		return w, nil
	}
	var err error
	w.home, err = s.LayerHome(layer)
	return w, err
}

// Pin keeps the layer from being removed by anyone until Close. The layers
// below it are kept too. An empty id pins nothing.
func (w *Workspace) Pin(ctx context.Context, layer define.LayerID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if layer == "" || w.pinned[layer] {
		return nil
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	if err := w.makePin(layer); err != nil {
		return err
	}
	w.markPinned(layer)
	return nil
}

// Hold tells the workspace that something else, such as a container, keeps the
// layer and those below it from being removed: Pin makes no pin for them.
func (w *Workspace) Hold(layer define.LayerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.markPinned(layer)
}

// markPinned notes a layer and those below it; w.mu is held.
func (w *Workspace) markPinned(layer define.LayerID) {
	for id := layer; id != "" && !w.pinned[id]; {
		w.pinned[id] = true
		l, err := w.s.Layer(string(id))
		if err != nil {
			break // an additional image store may hide it; the pin holds anyway
		}
		id = define.LayerID(l.Parent)
	}
}

// makePin creates a layer on top of parent ("": on nothing) that keeps it. It
// is not volatile: older podman versions do not see volatile layers and would
// prune what is below.
func (w *Workspace) makePin(parent define.LayerID) error {
	id, err := w.s.createPin(parent, w.layerName())
	if err != nil {
		if parent != "" && (errors.Is(err, storage.ErrLayerUnknown) || errors.Is(err, storage.ErrParentUnknown)) {
			return fmt.Errorf("pinning layer %s: it is no longer in the store: %w", parent, define.ErrNotFound)
		}
		return fmt.Errorf("pinning layer %s: %w", parent, Explain(w.s.raw.GraphRoot(), err))
	}
	w.pins = append(w.pins, id)
	return nil
}

// LayerName returns a new name for a layer of containers/storage that lives
// no longer than the workspace: Sweep removes it after a crash. The caller
// deletes it before Close.
func (w *Workspace) LayerName(ctx context.Context) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.start(ctx); err != nil {
		return "", err
	}
	return w.layerName(), nil
}

func (w *Workspace) layerName() string {
	w.layers++
	return w.name + "." + strconv.Itoa(w.layers)
}

// Dir returns the scratch directory, on the mount of the store's driver. The
// descriptor stays the workspace's.
func (w *Workspace) Dir(ctx context.Context) (path string, dir *os.File, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir != nil {
		return w.path, w.dir, nil
	}
	if path, err = w.place(ctx); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the scratch directory: %w", Explain(path, err))
	}
	w.dir, err = os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("opening the scratch directory: %w", Explain(path, err))
	}
	w.path = path
	return w.path, w.dir, nil
}

// place chooses where the scratch directory lies; w.mu is held.
func (w *Workspace) place(ctx context.Context) (string, error) {
	if w.home != "" {
		if w.closed {
			return "", fmt.Errorf("the container's workspace is closed: %w", define.ErrInvalid)
		}
		path := filepath.Join(w.home, scratchName)
		_, err := RemoveTree(nil, path)
		return path, err
	}
	if err := w.start(ctx); err != nil {
		return "", err
	}
	if w.s.zeroCopy != "" {
		state, err := w.s.StateDir()
		return filepath.Join(state, "work", w.name), err
	}
	if len(w.pins) == 0 {
		if err := w.makePin(""); err != nil {
			return "", err
		}
	}
	home, err := w.s.LayerHome(w.pins[0])
	return filepath.Join(home, scratchName), err
}

// Private returns a directory of mode 0700 for small files that belong to no
// layer, such as those of OCI runtimes. It goes with the workspace, and like
// the workspace it is swept when this process is killed.
func (w *Workspace) Private(ctx context.Context) (string, error) {
	if w.s.zeroCopy != "" {
		path, _, err := w.Dir(ctx)
		return path, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.private != "" {
		return w.private, nil
	}
	if err := w.start(ctx); err != nil {
		return "", err
	}
	dir, err := w.s.workDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, w.name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", fmt.Errorf("making a private directory: %w", Explain(path, err))
	}
	w.private = path
	return path, nil
}

// LayerHome returns the directory that holds an overlay layer's diff.
func (s *Store) LayerHome(id string) (string, error) {
	driver, err := s.raw.GraphDriver()
	if err != nil {
		return "", fmt.Errorf("the store's driver: %w", err)
	}
	m, err := driver.Metadata(id)
	if err != nil {
		return "", fmt.Errorf("finding layer %s: %w", id, err)
	}
	upper := m["UpperDir"]
	if upper == "" {
		return "", fmt.Errorf("finding layer %s: the driver names no upper directory: %w", id, define.ErrUnsupported)
	}
	return filepath.Dir(upper), nil
}

// workCount makes the workspaces of one process differ.
var workCount atomic.Uint64

// start takes the name and its lock file; w.mu is held.
func (w *Workspace) start(ctx context.Context) error {
	if w.closed {
		return fmt.Errorf("the workspace %s is closed: %w", w.name, define.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.lock != nil {
		return nil
	}
	dir, err := w.s.workDir()
	if err != nil {
		return err
	}
	self := processIdentity()
	for {
		name := workPrefix + self + "-" + strconv.FormatUint(workCount.Add(1), 10)
		lock, err := makeLock(filepath.Join(dir, name+lockSuffix))
		if errors.Is(err, fs.ErrExist) {
			continue // another process of the same number in another namespace
		}
		if err != nil {
			return fmt.Errorf("making the workspace's lock: %w", Explain(dir, err))
		}
		w.name, w.lock = name, lock
		return nil
	}
}

// workDir returns the directory of the lock files.
func (s *Store) workDir() (string, error) { return s.StateSubdir("work") }

// makeLock creates a lock file and locks it. Between the two, a sweeper may
// take a file for a dead process's and remove it: then it is fs.ErrExist, as
// when it existed before.
func makeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flockRetry(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fs.ErrExist
		}
		return nil, err
	}
	if !sameFile(f, path) {
		f.Close()
		return nil, fs.ErrExist
	}
	return f, nil
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// processIdentity is "<boot id>-<pid>-<start time>", for people and for names
// that do not repeat; whether the process lives is told by the lock alone,
// because a pid means little across pid namespaces.
func processIdentity() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	id := strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", "")
	start := "0"
	if stat, err := os.ReadFile("/proc/self/stat"); err == nil {
		// Field 22, counted behind the command's closing parenthesis.
		if i := strings.LastIndexByte(string(stat), ')'); i >= 0 {
			if f := strings.Fields(string(stat[i+1:])); len(f) > 19 {
				start = f[19]
			}
		}
	}
	return id + "-" + strconv.Itoa(os.Getpid()) + "-" + start
}

// Close removes the scratch directory and the pins.
func (w *Workspace) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	var errs []error
	if w.dir != nil {
		errs = append(errs, w.dir.Close())
		if _, err := RemoveTree(nil, w.path); err != nil {
			errs = append(errs, fmt.Errorf("removing the scratch directory: %w", err))
		}
	}
	if w.private != "" {
		if _, err := RemoveTree(nil, w.private); err != nil {
			errs = append(errs, fmt.Errorf("removing a private directory: %w", err))
		}
	}
	if err := w.s.deletePins(w.pins); err != nil {
		errs = append(errs, fmt.Errorf("removing the pin layers %q: %w", w.pins, err))
	}
	if w.lock == nil {
		return errors.Join(errs...)
	}
	if err := errors.Join(errs...); err != nil {
		w.lock.Close() // the next Sweep takes care of what is left
		return err
	}
	err := os.Remove(w.lock.Name())
	w.lock.Close()
	return err
}
