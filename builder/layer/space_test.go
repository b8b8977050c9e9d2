package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

var testDrivers = []string{"overlay", "vfs"}

func eachDriver(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	for _, d := range testDrivers {
		t.Run(d, func(t *testing.T) { test(t, newFixture(t, d)) })
	}
}

// base makes a first layer with a little of everything.
func (f *fixture) base() *Layer {
	f.t.Helper()
	return f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
		write(f.t, root, "etc/passwd", "root")
		write(f.t, root, "etc/group", "root")
		write(f.t, root, "old/a", "a")
		write(f.t, root, "old/sub/b", "b")
		write(f.t, root, "bin/tool", "tool")
		if err := os.Symlink("tool", in(root, "bin/sh")); err != nil {
			f.t.Fatal(err)
		}
	})
}

func TestChain(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		one := f.base()
		two := f.step(one, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
			write(t, root, "etc/passwd", "root, user")
			remove(t, root, "etc/group")
			remove(t, root, "old")
			write(t, root, "old/new", "only this") // an opaque directory
			if err := os.Link(in(root, "bin/tool"), in(root, "bin/hard")); err != nil {
				t.Fatal(err)
			}
		})
		three := f.step(two, BeginOptions{}, FreezeOptions{}, nil) // nothing changes
		want := []string{
			"bin drwxr-xr-x", "bin/hard -rw-r--r-- tool", "bin/sh Lrwxrwxrwx -> tool", "bin/tool -rw-r--r-- tool",
			"etc drwxr-xr-x", "etc/passwd -rw-r--r-- root, user",
			"old drwxr-xr-x", "old/new -rw-r--r-- only this",
		}
		same(t, "before the commit", f.tree(three), want)
		last := f.wait(three)
		if last.Size != 1024 {
			t.Errorf("a layer without changes has %d bytes", last.Size)
		}
		same(t, "after the commit", f.tree(three), want)
		if f.zeroCopy() {
			same(t, "members", f.members(f.wait(two).ID), []string{
				"bin/", "bin/hard", "bin/tool", "etc/", "etc/.wh.group", "etc/passwd", "old/", "old/.wh..wh..opq", "old/new",
			})
		}
		if three.Parent() != two || one.Parent() != nil || two.Depth() != 2 {
			t.Error("the chain is not linked")
		}
		f.check()

		again := openFixture(t, f.st)
		chain, err := again.sp.Open(context.Background(), last.ID)
		if err != nil {
			t.Fatal(err)
		}
		if again.wait(chain) != last || again.wait(chain.Parent()) != f.wait(two) {
			t.Errorf("opened again it is %+v, want %+v", again.wait(chain), last)
		}
		same(t, "opened again", again.tree(chain), want)
		if _, err := again.sp.Open(context.Background(), "none"); !errors.Is(err, define.ErrNotFound) {
			t.Errorf("opening what is not there: %v", err)
		}
	})
}

func TestSameLayerTwice(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		zero := time.Unix(0, 0)
		o := FreezeOptions{Timestamp: &zero}
		edit := func(root *os.File) { write(t, root, "a/b", "same") }
		one := f.step(nil, BeginOptions{}, o, edit)
		info := f.wait(one)
		two := f.step(nil, BeginOptions{}, o, edit)
		on := f.step(two, BeginOptions{}, o, func(root *os.File) { write(t, root, "c", "on the second") })
		if f.wait(two) != info {
			t.Errorf("%+v, want %+v", f.wait(two), info)
		}
		if got := f.tree(on); len(got) != 3 {
			t.Errorf("tree %q", got)
		}
		f.wait(on)
		f.check()
	})
}

func TestTimes(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		when := time.Unix(1234567890, 500)
		one := f.step(nil, BeginOptions{}, FreezeOptions{Timestamp: &when}, func(root *os.File) {
			write(t, root, "a/b/c", "c")
			if err := os.Symlink("b", in(root, "a/l")); err != nil {
				t.Fatal(err)
			}
		})
		f.wait(one)
		v, err := f.sp.View(context.Background(), one)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		for _, n := range []string{"a", "a/b", "a/b/c", "a/l"} {
			if fi, err := os.Lstat(in(v.Root(), n)); err != nil || fi.ModTime().Unix() != when.Unix() {
				t.Errorf("%s: %v %v", n, fi.ModTime(), err)
			}
		}
		f.check()
	})
}

func TestOmit(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		base := f.base()
		f.wait(base)
		v, err := f.sp.View(context.Background(), base)
		if err != nil {
			t.Fatal(err)
		}
		etc, err := os.Stat(in(v.Root(), "etc"))
		if err != nil {
			t.Fatal(err)
		}
		v.Close()
		next := f.step(base, BeginOptions{}, FreezeOptions{Omit: []string{
			"/proc", "etc/resolv.conf", "/used", "/dev/pts", "/dev", "/missing/too", "/../escape", "/bin/sh", "",
		}}, func(root *os.File) {
			for _, d := range []string{"proc", "used", "dev/pts"} {
				if err := os.MkdirAll(in(root, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			write(t, root, "used/file", "by the step")
			write(t, root, "etc/resolv.conf", "")
			if err := os.Chtimes(in(root, "etc"), etc.ModTime(), etc.ModTime()); err != nil {
				t.Fatal(err)
			}
		})
		names := f.members(f.wait(next).ID)
		want := []string{"used/", "used/file"}
		if f.st.Raw().GraphDriverName() == "vfs" {
			names = slices.DeleteFunc(names, func(n string) bool { return n == "etc/" || n == "/" })
		}
		same(t, "members", names, want)
		f.check()
	})
}

func TestBottom(t *testing.T) {
	f := newFixture(t, "overlay")
	dir := t.TempDir()
	bottom := openTree(t, dir)
	for _, d := range []string{"proc", "sys", "dev/shm", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"etc/hosts", "etc/resolv.conf", "etc/group"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(root *os.File) {
		if _, err := os.Stat(in(root, "proc")); err != nil {
			t.Error("the bottom is not shown: ", err)
		}
		remove(t, root, "proc")
		remove(t, root, "etc/hosts")
		remove(t, root, "dev")
		if err := os.MkdirAll(in(root, "dev"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(in(root, "sys"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, root, "etc/resolv.conf", "written")
	}
	t.Run("scratch", func(t *testing.T) {
		one := f.step(nil, BeginOptions{Bottom: bottom}, FreezeOptions{}, edit)
		same(t, "members", f.members(f.wait(one).ID), []string{"etc/", "etc/resolv.conf"})
		// A later step sees the whole bottom again.
		f.wait(f.step(one, BeginOptions{Bottom: bottom}, FreezeOptions{}, func(root *os.File) {
			for _, n := range []string{"proc", "etc/hosts", "dev/shm"} {
				if _, err := os.Stat(in(root, n)); err != nil {
					t.Error(err)
				}
			}
		}))
	})
	t.Run("base", func(t *testing.T) {
		base := f.base()
		two := f.step(base, BeginOptions{Bottom: bottom}, FreezeOptions{}, func(root *os.File) {
			edit(root)
			remove(t, root, "etc/group") // is in the base too
		})
		same(t, "members", f.members(f.wait(two).ID), []string{"etc/", "etc/.wh.group", "etc/resolv.conf"})
	})
	f.check()
}

func TestSquash(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		base := f.base()
		two := f.step(base, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
			write(t, root, "etc/passwd", "two")
			remove(t, root, "old")
			write(t, root, "tmp/gone", "soon")
			write(t, root, "kind", "a file first")
			if err := os.Link(in(root, "tmp/gone"), in(root, "tmp/stays")); err != nil {
				t.Fatal(err)
			}
		})
		three := f.step(two, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
			remove(t, root, "tmp/gone")
			remove(t, root, "kind")
			write(t, root, "kind/is", "a directory now")
			write(t, root, "old/back", "again")
			remove(t, root, "bin/sh")
		})
		want := f.tree(three)
		for name, below := range map[string]*Layer{"onto the base": base, "onto nothing": nil} {
			t.Run(name, func(t *testing.T) {
				when := time.Unix(1000, 0)
				for _, o := range []FreezeOptions{{}, {Timestamp: &when}} {
					l, err := f.sp.Squash(ctx, below, three, o)
					if err != nil {
						t.Fatal(err)
					}
					if l.Parent() != below {
						t.Error("the parent is wrong")
					}
					same(t, "tree", f.tree(l), want)
					names := f.members(f.wait(l).ID)
					if f.zeroCopy() && below != nil {
						same(t, "members", names, []string{
							"bin/", "bin/.wh.sh", "etc/", "etc/passwd", "kind/", "kind/is", "old/", "old/.wh..wh..opq", "old/back", "tmp/", "tmp/stays",
						})
					}
					if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, ".wh.") }) && below == nil {
						t.Errorf("deletions in the lowest layer: %q", names)
					}
				}
			})
		}
		if l, err := f.sp.Squash(ctx, three, three, FreezeOptions{}); err != nil || l != three {
			t.Errorf("nothing to squash: %v", err)
		}
		if _, err := f.sp.Squash(ctx, three, base, FreezeOptions{}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("upside down: %v", err)
		}
		same(t, "the source", f.tree(three), want)
		f.check()
	})
}

func TestManyLayers(t *testing.T) {
	f := newFixture(t, "overlay")
	var top *Layer
	for n := range 20 {
		top = f.step(top, BeginOptions{}, FreezeOptions{}, func(root *os.File) { write(t, root, fmt.Sprint(n), "") })
	}
	if got := len(f.tree(top)); got != 20 {
		t.Errorf("%d files, want 20", got)
	}
	f.wait(top)
	top = &Layer{parent: top, depth: overlay.MaxLowers}
	_, err := f.sp.Begin(context.Background(), top, BeginOptions{})
	if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "500") || !strings.Contains(err.Error(), "--squash") {
		t.Errorf("one too many: %v", err)
	}
}

func TestDiscard(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		w, err := f.sp.Begin(ctx, f.base(), BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		write(t, w.Root(), "x", "thrown away")
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
		if _, err := w.Freeze(ctx, FreezeOptions{}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("freezing what was discarded: %v", err)
		}
		if w, err = f.sp.Begin(ctx, nil, BeginOptions{}); err != nil { // left open: Close discards it
			t.Fatal(err)
		}
		write(t, w.Root(), "x", "left")
		for _, l := range []*Layer{nil, f.base()} {
			v, err := f.sp.View(ctx, l)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(in(v.Root(), "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing into a view: %v", err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
		if got := f.tree(nil); len(got) != 0 {
			t.Errorf("the empty root has %q", got)
		}
		f.close()
		if _, err := f.sp.Begin(ctx, nil, BeginOptions{}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("a closed space: %v", err)
		}
	})
}

func TestFailureIsPassedOn(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		if f.st.Raw().GraphDriverName() == "vfs" {
			t.Skip("containers/storage stores such names as deletions")
		}
		one := f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) { write(t, root, "a/.wh.b", "") })
		two := f.step(one, BeginOptions{}, FreezeOptions{}, nil)
		for _, l := range []*Layer{one, two} {
			if _, err := l.Wait(context.Background()); !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "/a/.wh.b") {
				t.Errorf("error %v", err)
			}
		}
	})
}

func TestCancel(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(context.Background())
		w, err := f.sp.Begin(ctx, nil, BeginOptions{})
		if err != nil {
			t.Fatal(err)
		}
		write(t, w.Root(), "x", "x")
		unlock, err := f.st.Lock(ctx) // holds the commit up
		if err != nil {
			t.Fatal(err)
		}
		if f.st.Raw().GraphDriverName() == "vfs" {
			cancel()
		}
		l, err := w.Freeze(context.Background(), FreezeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := l.Wait(context.Background()); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		unlock()
		if _, err := f.sp.Begin(ctx, nil, BeginOptions{}); !errors.Is(err, context.Canceled) && err != nil {
			t.Errorf("error %v", err)
		}
	})
}

func TestImmutableAndSocket(t *testing.T) {
	f := newFixture(t, "overlay")
	one := f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
		write(t, root, "kept", "kept")
		if err := unix.Mknod(in(root, "sock"), unix.S_IFSOCK|0o600, 0); err != nil {
			t.Fatal(err)
		}
	})
	info := f.wait(one)
	same(t, "members", f.members(info.ID), []string{"kept"})
	f.check()
}
