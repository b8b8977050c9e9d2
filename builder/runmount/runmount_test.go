package runmount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

func acquire(t *testing.T, st *store.Store, list ...Cache) *Caches {
	t.Helper()
	c, err := AcquireCaches(t.Context(), st, list, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func release(t *testing.T, c *Caches) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCacheKeepsItsContent(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := Cache{ID: "a", Attr: FileAttr{Mode: 0o1750}}
	c := acquire(t, st, a)
	write(t, c.Trees[0], "f", "x")
	var s unix.Stat_t
	if err := unix.Fstat(int(c.Trees[0].Fd()), &s); err != nil || s.Mode&0o7777 != 0o1750 {
		t.Errorf("mode %o (%v)", s.Mode, err)
	}
	release(t, c)
	c = acquire(t, st, a, Cache{ID: "b", Attr: FileAttr{Mode: 0o755}}, Cache{ID: "a", Base: "x", Attr: FileAttr{Mode: 0o755}})
	defer release(t, c)
	if got := read(t, c.Trees[0]) + "|" + read(t, c.Trees[1]) + "|" + read(t, c.Trees[2]); got != "f ||" {
		t.Errorf("contents %q", got)
	}
}

// TestCacheIDs: whatever an id holds, it is one name below the state
// directory, and ids that look alike are different caches.
func TestCacheIDs(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	ids := []string{"", ".", "..", "/", "../..", "a/../../..", "/etc", "\x00", "a\x00", strings.Repeat("x", 4096), strings.Repeat("../", 60) + "etc"}
	for i, id := range ids {
		c := acquire(t, st, Cache{ID: id, Attr: FileAttr{Mode: 0o755}})
		if got := read(t, c.Trees[0]); got != "" {
			t.Errorf("%q: holds %q", id, got)
		}
		write(t, c.Trees[0], fmt.Sprint(i), "")
		release(t, c)
	}
	state, err := st.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(state, stateName))
	if err != nil || len(entries) != len(ids) {
		t.Errorf("%d directories for %d ids (%v)", len(entries), len(ids), err)
	}
}

func TestCacheSource(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := Cache{ID: "a", Attr: FileAttr{Mode: 0o755}}
	c := acquire(t, st, a)
	canary := t.TempDir()
	path := fmt.Sprintf("/proc/self/fd/%d/", c.Trees[0].Fd())
	for _, err := range []error{os.Symlink(canary, path+"link"), os.Symlink("..", path+"up"), os.WriteFile(path+"file", nil, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	release(t, c)
	for _, source := range []string{"link", "link/x", "up", "up/x", "file", "file/x", "./link/"} {
		a.Source = source
		if c, err := AcquireCaches(t.Context(), st, []Cache{a}, nil); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%s: %v", source, err)
			if c != nil {
				release(t, c)
			}
		}
	}
	a.Source = "../../sub/dir"
	c = acquire(t, st, a)
	write(t, c.Trees[0], "f", "")
	release(t, c)
	a.Source = "/sub"
	c = acquire(t, st, a)
	defer release(t, c)
	if got := read(t, c.Trees[0]); got != "dir " {
		t.Errorf("sub: %q", got)
	}
	if left, _ := os.ReadDir(canary); len(left) > 0 {
		t.Errorf("written outside: %v", left)
	}
}

func TestCacheSeed(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	boom := errors.New("boom")
	a := Cache{ID: "a", Attr: FileAttr{Mode: 0o755}, Seed: func(_ context.Context, r *copier.Root) error {
		_, err := r.MkdirAll("/half", copier.Mkdir{})
		return errors.Join(err, boom)
	}}
	if _, err := AcquireCaches(t.Context(), st, []Cache{a}, nil); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	a.Seed = func(_ context.Context, r *copier.Root) error {
		_, err := r.MkdirAll("/whole", copier.Mkdir{})
		return err
	}
	for range 2 {
		c := acquire(t, st, a)
		if got := read(t, c.Trees[0]); got != "whole " {
			t.Errorf("holds %q", got)
		}
		release(t, c)
		a.Seed = func(context.Context, *copier.Root) error { return boom } // not asked again
	}
}

func TestCacheSharing(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	get := func(ctx context.Context, s Sharing, waiting func(string)) (*Caches, error) {
		return AcquireCaches(ctx, st, []Cache{{ID: "a", Sharing: s, Attr: FileAttr{Mode: 0o755}}}, waiting)
	}
	must := func(s Sharing) *Caches {
		c, err := get(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one, two := must(Shared), must(Shared)
	write(t, one.Trees[0], "f", "")
	if got := read(t, two.Trees[0]); got != "f " {
		t.Errorf("shared: %q", got)
	}
	p := must(Private)
	if got := read(t, p.Trees[0]); got != "" {
		t.Errorf("private beside shared: %q", got)
	}
	release(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	told := ""
	_, err := get(ctx, Locked, func(id string) { told = id })
	if cancel(); !errors.Is(err, context.DeadlineExceeded) || told != "a" {
		t.Errorf("locked beside shared: %v, told %q", err, told)
	}
	release(t, one)
	release(t, two)
	p = must(Private)
	if got := read(t, p.Trees[0]); got != "f " {
		t.Errorf("private alone: %q", got)
	}
	release(t, p)
	both, err := AcquireCaches(t.Context(), st, []Cache{{ID: "a", Sharing: Locked}, {ID: "a"}, {ID: "a", Source: "s"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	release(t, both)
}

// TestCacheConcurrent lets goroutines take two locked caches in either order
// while others prune: nobody waits for ever, nobody meets another.
func TestCacheConcurrent(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	var inside atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			list := []Cache{{ID: "a", Sharing: Locked, Attr: FileAttr{Mode: 0o755}}, {ID: "b", Sharing: Locked, Attr: FileAttr{Mode: 0o755}}}
			if i%2 == 1 {
				list[0], list[1] = list[1], list[0]
			}
			for range 20 {
				c, err := AcquireCaches(t.Context(), st, list, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				write(t, c.Trees[0], "f", "")
				inside.Add(-1)
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if i == 0 {
					if _, err := Prune(t.Context(), st, 0); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestPrune(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	c := acquire(t, st, Cache{ID: "a", Attr: FileAttr{Mode: 0o755}})
	write(t, c.Trees[0], "f", strings.Repeat("x", 10000))
	if p, err := Prune(t.Context(), st, 0); err != nil || p.Caches != 0 {
		t.Errorf("in use: %+v (%v)", p, err)
	}
	release(t, c)
	if p, err := Prune(t.Context(), st, time.Hour); err != nil || p.Caches != 0 {
		t.Errorf("young: %+v (%v)", p, err)
	}
	if p, err := Prune(t.Context(), st, 0); err != nil || p.Caches != 1 || p.Bytes < 10000 {
		t.Errorf("%+v (%v)", p, err)
	}
	state, err := st.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(state, stateName)); err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	f, err := Secret([]byte("token"), FileAttr{Mode: 0o440})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil || s.Mode != unix.S_IFREG|0o440 {
		t.Errorf("mode %o (%v)", s.Mode, err)
	}
	if got := read(t, f); got != "token" {
		t.Errorf("holds %q", got)
	}
}

// TestTreePrivately goes the way of kernels before 6.15.
func TestTreePrivately(t *testing.T) {
	t.Parallel()
	root, err := Tmpfs(1<<20, 0o1777)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := unix.Mkdirat(int(root.Fd()), "d", 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Openat(int(root.Fd()), "d", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sub := os.NewFile(uintptr(fd), "d")
	defer sub.Close()
	fd, err = treePrivately(root, sub)
	if err != nil {
		t.Fatal(err)
	}
	tree := os.NewFile(uintptr(fd), "tree")
	defer tree.Close()
	write(t, tree, "f", "x")
	if got := read(t, sub); got != "f " {
		t.Errorf("holds %q", got)
	}
}

func TestDiscarding(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	lower, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer lower.Close()
	write(t, lower, "old", "old")
	w := st.NewWorkspace()
	defer w.Close()
	path, dir, err := w.Dir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, remove, err := Discarding(dir, "m", lower, st.UserXattr(), nil)
	if errors.Is(err, define.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	write(t, tree, "old", "new")
	write(t, tree, "more", "")
	if got := read(t, tree); got != "more old " {
		t.Errorf("tree holds %q", got)
	}
	tree.Close()
	if err := remove(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(lower.Name(), "old")); err != nil || string(b) != "old" {
		t.Errorf("lower: %q (%v)", b, err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}

func BenchmarkAcquireCaches(b *testing.B) {
	dir, err := os.MkdirTemp(scratch, "store-")
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(b.Context(), store.Options{Root: dir + "/root", RunRoot: dir + "/run", Driver: "overlay", SingleID: worker.SingleID})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	for b.Loop() {
		c, err := AcquireCaches(b.Context(), st, []Cache{{ID: "a", Attr: FileAttr{Mode: 0o755}}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
