package runmount

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Sharing says who may use a cache directory at the same time.
type Sharing int

const (
	// Shared: any number of steps.
	Shared Sharing = iota
	// Locked: one step; others wait.
	Locked
	// Private: one step; others get a directory of their own.
	Private
)

// Cache asks for one cache directory.
type Cache struct {
	// ID is any text; it never becomes part of a path.
	ID string
	// Base tells what the directory begins with, "" for nothing: directories
	// of one ID with other beginnings are others.
	Base    string
	Sharing Sharing
	// Source is the unsafe sub-path that is mounted, made when missing; "" or
	// "/" is the whole. Symbolic links on it are refused.
	Source string
	// Attr of a new directory.
	Attr FileAttr
	// Seed fills a new directory; nil leaves it empty.
	Seed func(context.Context, *copier.Root) error
}

// Caches are cache directories in use.
type Caches struct {
	// Trees are in the order of the request.
	Trees []*os.File
	locks []*os.File
}

// Close ends the use; the locks are given back.
func (c *Caches) Close() error {
	var err error
	for _, f := range c.Trees {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	for _, f := range c.locks {
		err = errors.Join(err, f.Close())
	}
	c.Trees, c.locks = nil, nil
	return err
}

// stateName is the directory of all caches, below the store's state directory.
const stateName = "mounts"

// AcquireCaches makes what is missing, takes the locks and opens the
// directories. The same cache asked for twice is one, with the stricter
// sharing. Locks are taken in the order of the digests, so that steps that
// want the same caches cannot wait for each other. waiting, which may be nil,
// is told the ID of a cache that another step has locked.
func AcquireCaches(ctx context.Context, st *store.Store, list []Cache, waiting func(id string)) (_ *Caches, err error) {
	dir, err := openState(st)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c := &Caches{Trees: make([]*os.File, len(list))}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	byKey := map[string][]int{}
	for i := range list {
		k := list[i].key()
		byKey[k] = append(byKey[k], i)
	}
	keys := make([]string, 0, len(byKey))
	for k := range byKey {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := c.acquire(ctx, dir, k, list, byKey[k], waiting); err != nil {
			return nil, fmt.Errorf("cache mount %q: %w", list[byKey[k][0]].ID, err)
		}
	}
	return c, nil
}

// key is the directory's name.
func (c *Cache) key() string {
	sum := sha256.Sum256([]byte(c.ID + "\x00" + c.Base))
	return hex.EncodeToString(sum[:20])
}

func openState(st *store.Store) (*os.File, error) {
	state, err := st.StateDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(state, stateName)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making the directory of cache mounts: %w", store.Explain(path, err))
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the directory of cache mounts %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// acquire locks one cache and opens the trees of those who asked for it.
func (c *Caches) acquire(ctx context.Context, state *os.File, key string, list []Cache, asked []int, waiting func(string)) error {
	want := list[asked[0]]
	for _, i := range asked {
		want.Sharing = max(want.Sharing, list[i].Sharing)
	}
	dir, lock, err := hold(ctx, state, key, want, waiting)
	if err != nil {
		return err
	}
	defer dir.Close()
	c.locks = append(c.locks, lock)
	for _, i := range asked {
		sub, err := openSource(dir, list[i].Source)
		if err != nil {
			return err
		}
		c.Trees[i], err = Tree(nil, sub)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// hold returns the cache's directory, made and locked.
func hold(ctx context.Context, state *os.File, key string, want Cache, waiting func(string)) (dir, lock *os.File, err error) {
	// Pruning may remove what was just found: then all begins again.
	for range 100 {
		dir, lock, err = tryHold(ctx, state, key, want, waiting)
		if !errors.Is(err, errAgain) {
			return dir, lock, err
		}
	}
	return nil, nil, errors.New("it was removed again and again while being opened: repeat the build")
}

var errAgain = errors.New("removed meanwhile")

func tryHold(ctx context.Context, state *os.File, key string, want Cache, waiting func(string)) (_, _ *os.File, err error) {
	home, err := openHome(state, key)
	if err != nil {
		return nil, nil, err
	}
	defer home.Close()
	slot, lock, err := lockSlot(ctx, home, want, waiting)
	if err != nil {
		return nil, nil, err
	}
	dir, err := openDir(home, strconv.Itoa(slot))
	if errors.Is(err, unix.ENOENT) {
		if want.Sharing == Shared {
			lock.Close()
			if lock, err = lockToMake(ctx, home, slot); err != nil {
				return nil, nil, err
			}
		}
		if err = makeData(ctx, home, slot, want); err == nil && want.Sharing == Shared {
			err = errAgain // for the shared lock
		}
		if err == nil {
			dir, err = openDir(home, strconv.Itoa(slot))
		}
	}
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	now := unix.NsecToTimeval(time.Now().UnixNano())
	_ = unix.Futimes(int(lock.Fd()), []unix.Timeval{now, now}) // only pruning by age looks at it
	return dir, lock, nil
}

func openHome(state *os.File, key string) (*os.File, error) {
	if err := unix.Mkdirat(int(state.Fd()), key, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, store.Explain(state.Name(), err)
	}
	home, err := openDir(state, key)
	if errors.Is(err, unix.ENOENT) {
		return nil, errAgain
	}
	return home, err
}

func openDir(at *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(at.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		// A step may have left its cache's root without permissions.
		if !errors.Is(err, unix.EACCES) {
			return nil, err
		}
		if fd, err = unix.Openat(int(at.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// makeData makes the directory, whose slot is locked, under another name
// first: one that exists is complete.
func makeData(ctx context.Context, home *os.File, slot int, want Cache) error {
	at, name := int(home.Fd()), strconv.Itoa(slot)
	if d, err := openDir(home, name); err == nil {
		return d.Close()
	}
	fresh := name + ".new"
	if _, err := store.RemoveTree(home, fresh); err != nil {
		return err
	}
	fail := func(err error) error {
		_, rerr := store.RemoveTree(home, fresh)
		return errors.Join(fmt.Errorf("make its directory: %w", store.Explain(home.Name(), err)), rerr)
	}
	if err := unix.Mkdirat(at, fresh, 0o700); err != nil {
		return fail(err)
	}
	if want.Seed != nil {
		d, err := openDir(home, fresh)
		if err != nil {
			return fail(err)
		}
		root, err := copier.NewRoot(d)
		d.Close()
		if err != nil {
			return fail(err)
		}
		if err := errors.Join(want.Seed(ctx, root), root.Close()); err != nil {
			return fail(err)
		}
	}
	if err := want.Attr.apply(at, fresh); err != nil {
		return fail(err)
	}
	if err := unix.Renameat(at, fresh, at, name); err != nil {
		return fail(err)
	}
	return nil
}

// openSource opens a sub-path of a cache, whose content is hostile, without
// following any link, making what is missing.
func openSource(dir *os.File, unsafeSource string) (*os.File, error) {
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	at := os.NewFile(uintptr(fd), dir.Name())
	for _, name := range strings.Split(filepath.Clean("/"+unsafeSource), "/") {
		if name == "" {
			continue
		}
		if err = unix.Mkdirat(int(at.Fd()), name, 0o755); err == nil {
			err = unix.Fchmodat(int(at.Fd()), name, 0o755, 0) // free of the umask
		}
		if err == nil || errors.Is(err, unix.EEXIST) {
			fd, err = unix.Openat(int(at.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		at.Close()
		if err != nil {
			return nil, fmt.Errorf("source %q: %q is not a directory below the cache: %w", unsafeSource, name, errors.Join(err, define.ErrInvalid))
		}
		at = os.NewFile(uintptr(fd), name)
	}
	return at, nil
}
