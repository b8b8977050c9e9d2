package copier

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/tests/fstree"
	"golang.org/x/sys/unix"
)

// escapes is a root full of ways out. OUT is a directory outside of it.
const escapes = `
/abs link -> OUT
/absdir link -> OUT/dir
/absfile link -> OUT/file
/dots link -> ../../../../../../../../../../../../OUT
/rel link -> ../canary
/chain link -> chain1
/chain1 link -> d/chain2
/d/chain2 link -> ../abs
/root link -> /
/d/up link -> ../..
/loop link -> loop
/loop1 link -> loop2
/loop2 link -> loop1
/self link -> /proc/self
/cwd link -> /proc/self/cwd
/fd link -> /proc/self/fd/0
/pipe fifo 0600
/d/file file 0644 "inside"
/slash link -> OUT/dir/
`

// escapePaths are tried as names in that root, with OUT replaced.
var escapePaths = []string{
	"../canary/file", "/../canary/file", "d/../../canary/file", "OUT/file", "//OUT/file",
	"abs/file", "abs/dir/sub/file", "absdir", "absdir/", "absdir/sub/file", "absfile", "dots/file", "rel/file",
	"chain/file", "chain/dir/../file", "root/OUT/file", "root/../OUT/file", "d/up/canary/file", "d/up/OUT/file",
	"loop", "loop/x", "loop1/file", "self/root/OUT/file", "cwd", "cwd/file", "fd", "slash", "slash/sub/file",
	"pipe", "pipe/x", "./abs/./file", "abs//file", "abs/", "abs/.", "abs/..", "root/", ".", "..", "/", "",
	"d/up/../../../OUT/file", "abs/file/", "x\x00/../../canary", strings.Repeat(strings.Repeat("a", 100)+"/", 45) + "../file", strings.Repeat("n", 300),
	strings.Repeat("root/", 50) + "OUT/file", strings.Repeat("../", 1500) + "OUT/file",
}

// escapeRoot makes the root beside its canary.
func escapeRoot(t *testing.T, walk bool) (r *Root, dir, out string) {
	t.Helper()
	out = canary(t)
	dir = filepath.Join(filepath.Dir(out), "root")
	fstree.Make(t, dir, strings.ReplaceAll(escapes, "OUT", out))
	return openRoot(t, dir, walk), dir, out
}

// within runs f, which must neither hang nor let the secret out.
func within(t *testing.T, name string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil && strings.Contains(err.Error(), "token") {
			t.Errorf("%q: the error tells the secret: %v", name, err)
		}
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%q: hangs", name)
		return nil
	}
}

// TestEscapeRead: nothing outside can be opened, described, selected or
// digested.
func TestEscapeRead(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		r, _, out := escapeRoot(t, walk)
		ctx := context.Background()
		for _, p := range escapePaths {
			p := strings.ReplaceAll(p, "OUT", out)
			within(t, p, func() error {
				b, err := r.ReadFile(p, 1<<20)
				if err == nil && strings.Contains(string(b), "token") {
					t.Errorf("ReadFile(%q) read %q", p, b)
				}
				return err
			})
			within(t, p, func() error {
				f, err := r.Open(p, unix.O_RDONLY)
				if err == nil {
					f.Close()
				}
				return err
			})
			within(t, p, func() error {
				info, err := r.Stat(p, true)
				if err == nil && info.Mode.IsRegular() && info.Size == 5 {
					t.Errorf("Stat(%q) saw a file outside", p)
				}
				return err
			})
			within(t, p, func() error {
				sel, err := r.Select(ctx, Select{Patterns: []string{p}})
				if err == nil {
					_, err = sel.Digests(ctx, DigestOptions{})
					dst, dir := makeRoot(t, "", walk)
					if err := sel.Put(ctx, dst, Put{Dest: "/x/", Owner: self()}); err == nil {
						if s := fstree.MustDump(t, dir, fstree.Contents); strings.Contains(s, "token") {
							t.Errorf("Put of %q copied\n%s", p, s)
						}
					}
				}
				return err
			})
			within(t, p, func() error {
				var b bytes.Buffer
				err := r.Tar(ctx, p, &b)
				if strings.Contains(b.String(), "token") {
					t.Errorf("Tar(%q) holds the secret", p)
				}
				return err
			})
		}
	})
}

// TestEscapeWrite: nothing outside can be made, changed or removed. The canary
// checks itself.
func TestEscapeWrite(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		ctx := context.Background()
		src, _ := makeRoot(t, "/file file \"new\"\n/d/sub/file file \"new\"\n/d/file file \"new\"", walk)
		for name, write := range map[string]func(*Root, string) error{
			"mkdir":  func(r *Root, p string) error { _, err := r.MkdirAll(p, Mkdir{Owner: *self()}); return err },
			"remove": func(r *Root, p string) error { return r.RemoveAll(p) },
			"putfile": func(r *Root, p string) error {
				return r.PutFile(ctx, "file", strings.NewReader("new"), 0o644, time.Time{}, Put{Dest: p, Owner: self()})
			},
			"put file": func(r *Root, p string) error { return putPattern(src, r, "file", p) },
			"put dir":  func(r *Root, p string) error { return putPattern(src, r, "d", p) },
			"extract": func(r *Root, p string) error {
				return r.Extract(ctx, bytes.NewReader(makeTar(t, tarEntry{name: "file", body: "new"}, tarEntry{name: "sub/file", body: "new"})), Extract{Dest: p, Owner: self()})
			},
		} {
			r, dir, out := escapeRoot(t, walk)
			for _, p := range escapePaths {
				p := strings.ReplaceAll(p, "OUT", out)
				within(t, name+" "+p, func() error { return write(r, p) })
				if name == "remove" {
					fstree.Build(dir, strings.ReplaceAll(escapes, "OUT", out)) // what is left says EEXIST
				}
			}
		}
	})
}

func putPattern(src, dst *Root, pattern, dest string) error {
	sel, err := src.Select(context.Background(), Select{Patterns: []string{pattern}})
	if err != nil {
		return err
	}
	return sel.Put(context.Background(), dst, Put{Dest: dest, Owner: self()})
}

// TestResolveAgrees: the walk answers as the kernel does.
func TestResolveAgrees(t *testing.T) {
	t.Parallel()
	fast, dir, out := escapeRoot(t, false)
	slow := openRoot(t, dir, true)
	for _, p := range append(escapePaths, "d/file", "d/file/", "d/./file", "abs", "rel", "chain", "d/up/d/file", "root/d/file", "missing", "missing/x", "d/missing") {
		p := strings.ReplaceAll(p, "OUT", out)
		for _, follow := range []bool{false, true} {
			a, aerr := fast.Stat(p, follow)
			b, berr := slow.Stat(p, follow)
			if a != b || !sameErrno(aerr, berr) {
				t.Errorf("Stat(%q, %v): openat2 %+v, %v; walk %+v, %v", p, follow, a, aerr, b, berr)
			}
		}
	}
}

func sameErrno(a, b error) bool {
	var x, y unix.Errno
	errors.As(a, &x)
	errors.As(b, &y)
	return x == y
}

// TestMagicLinks: procfs inside a root does not lead out of it.
func TestMagicLinks(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		r := openRoot(t, "/proc", walk)
		for _, p := range []string{"self/cwd", "self/root", "self/exe", "self/fd/0", "self/root/etc/passwd", "self/ns/mnt"} {
			if f, err := r.Open(p, unix.O_RDONLY); err == nil {
				f.Close()
				t.Errorf("Open(%q) followed a magic link", p)
			}
			if _, err := r.Stat(p, true); !errors.Is(err, unix.ELOOP) {
				t.Errorf("Stat(%q): %v, want ELOOP", p, err)
			}
			if info, err := r.Stat("self/cwd", false); err != nil || info.Link == "" {
				t.Errorf("Stat(self/cwd): %+v, %v", info, err)
			}
		}
		if _, err := r.ReadFile("self/status", 1<<20); err != nil {
			t.Errorf("a plain link of procfs: %v", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		r, _ := makeRoot(t, "/pipe fifo\n/sock socket\n/f file \"x\"\n/l link -> f", walk)
		for _, p := range []string{"pipe", "sock"} {
			for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
				if err := within(t, p, func() error { _, err := r.Open(p, flags); return err }); !errors.Is(err, errSpecial) {
					t.Errorf("Open(%s, %d): %v", p, flags, err)
				}
			}
			f, err := r.Open(p, unix.O_PATH)
			if err != nil {
				t.Errorf("Open(%s, O_PATH): %v", p, err)
				continue
			}
			f.Close()
		}
		if _, err := r.Open("new", unix.O_CREAT|unix.O_WRONLY); err == nil {
			t.Error("Open with O_CREAT works")
		}
		if _, err := r.Open("l", unix.O_RDONLY|unix.O_NOFOLLOW); !errors.Is(err, unix.ELOOP) {
			t.Errorf("Open of a link with O_NOFOLLOW: %v", err)
		}
		if _, err := r.ReadFile("f", 0); err == nil || !strings.Contains(err.Error(), "f:") {
			t.Errorf("ReadFile beyond the limit: %v", err)
		}
		f, err := r.Open("/l", unix.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
}

// TestRace: somebody swaps a directory for a link out of the root while every
// operation works through it (CVE-2018-15664).
func TestRace(t *testing.T) {
	if testing.Short() {
		t.Skip("5000 tries of each")
	}
	bothWays(t, func(t *testing.T, walk bool) {
		out := canary(t)
		dir := filepath.Join(filepath.Dir(out), "root")
		fstree.Make(t, dir, strings.ReplaceAll("/real/sub/file file \"in\"\n/real/file file \"in\"\n/evil link -> OUT/dir\n/d/x file \"\"", "OUT", out))
		var stop atomic.Bool
		flipped := make(chan struct{})
		go func() {
			defer close(flipped)
			for !stop.Load() {
				// At each moment d is a directory or a link out.
				unix.Renameat2(unix.AT_FDCWD, dir+"/real", unix.AT_FDCWD, dir+"/evil", unix.RENAME_EXCHANGE)
			}
		}()
		defer func() { stop.Store(true); <-flipped }()
		r := openRoot(t, dir, walk)
		src, _ := makeRoot(t, "/t/file file \"new\"\n/t/sub/file file \"new\"", walk)
		ctx := context.Background()
		archive := makeTar(t, tarEntry{name: "sub/file", body: "new"}, tarEntry{name: "n", typ: tar.TypeSymlink, link: "x"})
		for i := range 5000 {
			if b, err := r.ReadFile("real/sub/file", 1<<10); err == nil && strings.Contains(string(b), "token") {
				t.Fatalf("try %d: read the secret", i)
			}
			switch i % 7 {
			case 0:
				r.MkdirAll("real/sub/new", Mkdir{Owner: *self()})
			case 1:
				r.RemoveAll("real/sub/new")
				r.RemoveAll("real/sub/file")
			case 2:
				r.PutFile(ctx, "file", strings.NewReader("new"), 0o644, time.Time{}, Put{Dest: "/real/sub/", Owner: self()})
			case 3:
				r.Extract(ctx, bytes.NewReader(archive), Extract{Dest: "/real", Owner: self()})
			case 4:
				putPattern(src, r, "t", "/real")
			case 5:
				var b bytes.Buffer
				r.Tar(ctx, "real", &b)
				if strings.Contains(b.String(), "token") {
					t.Fatalf("try %d: Tar read the secret", i)
				}
			case 6:
				dst, d := makeRoot(t, "", walk)
				putPattern(r, dst, "real", "/")
				if s := fstree.MustDump(t, d, fstree.Contents); strings.Contains(s, "token") {
					t.Fatalf("try %d: Put read the secret\n%s", i, s)
				}
				os.RemoveAll(d)
			}
		}
	})
}

func TestNoDescriptorsLeft(t *testing.T) {
	// Not parallel: it counts those of the whole process.
	r, _, out := escapeRoot(t, false)
	dst, _ := makeRoot(t, "", false)
	before := openFDs(t)
	ctx := context.Background()
	for range 2 {
		for _, p := range escapePaths {
			p := strings.ReplaceAll(p, "OUT", out)
			for _, walk := range []bool{false, true} {
				r.walk = walk
				r.Stat(p, true)
				r.ReadFile(p, 10)
				if sel, err := r.Select(ctx, Select{Patterns: []string{p, "d"}}); err == nil {
					sel.Digests(ctx, DigestOptions{})
					sel.Put(ctx, dst, Put{Dest: "/q/" + p + "/"})
					dst.RemoveAll("q")
				}
				dst.MkdirAll("q/"+p, Mkdir{})
				dst.PutFile(ctx, "f", strings.NewReader("x"), 0o644, time.Time{}, Put{Dest: "/q/" + p})
				dst.RemoveAll("q/" + p)
				dst.RemoveAll("q")
				dst.Extract(ctx, strings.NewReader("no tar"), Extract{Dest: "q/f"})
				r.Tar(ctx, p, new(bytes.Buffer))
			}
		}
	}
	if after := openFDs(t); after > before {
		t.Errorf("%d descriptors were left open", after-before)
	}
}

func TestCleanMember(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a": "a", "/a": "a", "//a/": "a", "./a/./b": "a/b", "a/../b": "b", ".": ".", "./": ".", "/": ".", "": ".",
	} {
		if got, err := cleanMember(in); err != nil || got != want {
			t.Errorf("cleanMember(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"..", "../x", "a/../../x", "/../x"} {
		if _, err := cleanMember(in); !errors.Is(err, define.ErrEscape) {
			t.Errorf("cleanMember(%q): %v, want ErrEscape", in, err)
		}
	}
}
