package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// maxDigests bounds how many layers are read at once; each reading takes two
// goroutines' worth of processor and some 10 MiB.
const maxDigests = 2

// Space is where one build makes its layers: a workspace of the store, a
// background committer and the descriptors in use. It is safe for concurrent
// use by the stages of a build.
type Space struct {
	st      *store.Store
	ws      *store.Workspace
	digests chan struct{}
	commits sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	steps   int
	files   []*os.File // closed at the end: frozen uppers, the store's diffs
	empty   *os.File   // an empty directory, once needed
	working map[*Working]struct{}
	views   map[*View]struct{}

	lowerLogs lowerLogs

	queue    []*adoption // layers that are to enter the store, parents first
	adopting bool        // a goroutine works on queue
}

// NewSpace makes an empty space; it costs nothing until it is used.
func NewSpace(st *store.Store) *Space { return newSpace(st, st.NewWorkspace()) }

// NewContainerSpace makes a space for work on one container of
// containers/storage, which the caller has locked; id is its writable layer.
func NewContainerSpace(st *store.Store, id string) (*Space, error) {
	ws, err := st.NewContainerWorkspace(id)
	if err != nil {
		return nil, err
	}
	return newSpace(st, ws), nil
}

func newSpace(st *store.Store, ws *store.Workspace) *Space {
	return &Space{
		st: st, ws: ws, digests: make(chan struct{}, maxDigests),
		working: map[*Working]struct{}{}, views: map[*View]struct{}{},
	}
}

// Open returns the chain that ends at a layer of the store. Nothing is pinned
// until a Working or View is made on it. An empty id is the empty root.
func (s *Space) Open(ctx context.Context, id define.LayerID) (*Layer, error) {
	if id == "" {
		return nil, nil //nolint:nilnil // the empty root
	}
	var chainUp []*store.LayerRecord // topmost first
	seen := map[string]bool{}
	for next := string(id); next != ""; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, err := s.st.Layer(next)
		if err != nil {
			if errors.Is(err, storage.ErrLayerUnknown) {
				return nil, fmt.Errorf("layer %s: %s is not in the store: %w", id, next, define.ErrNotFound)
			}
			return nil, fmt.Errorf("layer %s: %w", id, err)
		}
		if seen[l.ID] {
			return nil, fmt.Errorf("layer %s: its chain of parents is a circle at %s: the store is damaged, see the check command: %w", id, l.ID, define.ErrInvalid)
		}
		seen[l.ID] = true
		chainUp = append(chainUp, l)
		next = l.Parent
	}
	var top *Layer
	for i := len(chainUp) - 1; i >= 0; i-- {
		l := chainUp[i]
		n := &Layer{parent: top, depth: top.Depth() + 1, stored: true, done: make(chan struct{})}
		n.special = l.Mapped
		n.info = Info{ID: define.LayerID(l.ID), DiffID: l.DiffID, Size: l.Size}
		switch {
		case l.DiffID == "":
		case top == nil:
			n.info.ChainID = l.DiffID
		case top.info.ChainID != "":
			n.info.ChainID = chain(top.info.ChainID, l.DiffID)
		}
		close(n.done)
		top = n
	}
	return top, nil
}

// pin keeps the part of the chain that was in the store before from being
// removed, and opens its directories.
func (s *Space) pin(ctx context.Context, l *Layer) error {
	base := l.base()
	if base == nil {
		return nil
	}
	if err := s.ws.Pin(ctx, base.info.ID); err != nil {
		return err
	}
	if ok, _ := s.st.ZeroCopy(); !ok {
		return nil // the directories are of no use
	}
	return s.openDirs(base)
}

// viaStorage reports whether working roots and views of the chain must be
// made by the store's own driver. The chain has been pinned.
func (s *Space) viaStorage(l *Layer) bool {
	if ok, _ := s.st.ZeroCopy(); !ok {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; l != nil; l = l.parent {
		if l.special {
			return true
		}
	}
	return false
}

// openDirs opens the directories of a chain of the store.
func (s *Space) openDirs(base *Layer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if base.dirs != nil {
		return nil
	}
	driver, err := s.st.Raw().GraphDriver()
	if err != nil {
		return fmt.Errorf("the store's driver: %w", err)
	}
	paths, err := diffPaths(driver.Metadata, base)
	if err != nil {
		return err
	}
	for i, l := 0, base; l != nil; i, l = i+1, l.parent {
		if l.dirs != nil {
			continue // opened through another chain
		}
		if l.dirs, err = s.openDiff(paths[i]); err != nil {
			return fmt.Errorf("layer %s: %w", l.info.ID, store.Explain(paths[i], err))
		}
		if err := unix.Access(filepath.Join(filepath.Dir(paths[i]), "composefs-data"), unix.F_OK); err == nil {
			l.special = true
		}
		s.noteOwners(l, paths[i])
	}
	return nil
}

// diffPaths asks the driver for the directories of a chain, topmost first:
// once for the whole chain where the answer is as long as the chain.
func diffPaths(metadata func(string) (map[string]string, error), base *Layer) ([]string, error) {
	m, err := metadata(string(base.info.ID))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", base.info.ID, err)
	}
	paths := []string{m["UpperDir"]}
	if lower := m["LowerDir"]; lower != "" {
		paths = append(paths, strings.Split(lower, ":")...)
	}
	if len(paths) == base.depth {
		return paths, nil
	}
	paths = paths[:0]
	for l := base; l != nil; l = l.parent {
		m, err := metadata(string(l.info.ID))
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.info.ID, err)
		}
		paths = append(paths, m["UpperDir"])
	}
	return paths, nil
}

// openDiff opens a layer's diff directory and the further ones, diff1 and so
// on, that come below it in some old stores.
func (s *Space) openDiff(path string) ([]*os.File, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	dirs := []*os.File{f}
	s.files = append(s.files, f)
	for n := 1; ; n++ {
		f, err := os.OpenFile(filepath.Join(filepath.Dir(path), "diff"+strconv.Itoa(n)), flags, 0)
		if err != nil {
			return dirs, nil
		}
		dirs = append(dirs, f)
		s.files = append(s.files, f)
	}
}

// lowers returns the directories of the chain, topmost first.
func (s *Space) lowers(l *Layer) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	var dirs []*os.File
	for ; l != nil; l = l.parent {
		dirs = append(dirs, l.dirs...)
	}
	return dirs
}

// emptyDir returns a directory that has nothing in it, for mounts that have
// too few layers otherwise.
func (s *Space) emptyDir(ctx context.Context) (*os.File, error) {
	_, scratch, err := s.ws.Dir(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty != nil {
		return s.empty, nil
	}
	at := int(scratch.Fd())
	if err := unix.Mkdirat(at, "empty", 0o555); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("making an empty directory: %w", store.Explain(scratch.Name(), err))
	}
	if err := unix.Fchmodat(at, "empty", 0o555, 0); err != nil {
		return nil, fmt.Errorf("making an empty directory: %w", err)
	}
	fd, err := unix.Openat(at, "empty", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening an empty directory: %w", err)
	}
	s.empty = os.NewFile(uintptr(fd), "empty")
	s.files = append(s.files, s.empty)
	return s.empty, nil
}

// mountReadOnly mounts the merged chain.
func (s *Space) mountReadOnly(ctx context.Context, l *Layer) (*os.File, error) {
	return s.mountLowers(ctx, s.lowers(l))
}

func (s *Space) mountLowers(ctx context.Context, lowers []*os.File) (*os.File, error) {
	if len(lowers) < 2 { // the kernel wants two
		empty, err := s.emptyDir(ctx)
		if err != nil {
			return nil, err
		}
		if len(lowers) == 0 {
			return cloneMount(empty, true)
		}
		lowers = append(lowers, empty)
	}
	return overlay.Mount(overlay.Options{Lowers: lowers, UserXattr: s.st.UserXattr()})
}

// reopen returns a second descriptor of a directory.
func reopen(dir *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}

// step numbers the scratch directories.
func (s *Space) step() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps++
	return strconv.Itoa(s.steps)
}

// keep leaves a descriptor to be closed with the space.
func (s *Space) keep(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

// Sync makes the layers durable: one syncfs(2) of the store's file system.
func (s *Space) Sync(ctx context.Context) error { return s.st.Sync(ctx) }

// Close waits for background work to end (cancelled when the context that
// Begin was called with is), and removes all that is not a layer. Workings
// and Views that are still open are discarded and closed.
func (s *Space) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var working []*Working
	for w := range s.working {
		working = append(working, w)
	}
	var views []*View
	for v := range s.views {
		views = append(views, v)
	}
	s.mu.Unlock()

	var errs []error
	for _, w := range working {
		errs = append(errs, w.Discard())
	}
	for _, v := range views {
		errs = append(errs, v.Close())
	}
	s.commits.Wait()
	s.mu.Lock()
	for _, f := range s.files {
		f.Close()
	}
	s.files, s.empty = nil, nil
	s.mu.Unlock()
	errs = append(errs, s.ws.Close())
	return errors.Join(errs...)
}
