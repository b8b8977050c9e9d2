package copier

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/tests/fstree"
	"golang.org/x/sys/unix"
)

func TestMkdirAll(t *testing.T) {
	t.Parallel()
	times := []fstree.Option{fstree.NoOwner, fstree.Times}
	for _, c := range []struct {
		name, dst, path string
		m               Mkdir
		made            []string
		want, err       string
	}{
		{name: "new", dst: "/a dir @5.000000000", path: "/a/b/c", made: []string{"/a/b", "/a/b/c"},
			want: "/a dir 0755 @5.000000000\n/a/b dir 0755 @5.000000000\n/a/b/c dir 0755 @5.000000000\n"},
		{name: "existing", dst: "/a dir 0700 @5.000000000", path: "a/", want: "/a dir 0700 @5.000000000\n"},
		{name: "mode and time", dst: "/a dir @5.000000000", path: "a/b", m: Mkdir{Mode: 0o710 | fs.ModeSticky, ModTime: time.Unix(9, 1)}, made: []string{"/a/b"},
			want: "/a dir 0755 @5.000000000\n/a/b dir 1710 @9.000000001\n"},
		{name: "through links", dst: "/a dir @5.000000000\n/l link -> /a @1.000000000", path: "l/../l/b", made: []string{"/a/b"},
			want: "/a dir 0755 @5.000000000\n/a/b dir 0755 @5.000000000\n/l link 0777 -> /a @1.000000000\n"},
		{name: "dangling link", dst: "/d/l link -> ../e/f @1.000000000\n/e dir @2.000000000\n/d dir @3.000000000", path: "d/l/g", made: []string{"/e/f", "/e/f/g"},
			want: "/d dir 0755 @3.000000000\n/d/l link 0777 -> ../e/f @1.000000000\n/e dir 0755 @2.000000000\n/e/f dir 0755 @2.000000000\n/e/f/g dir 0755 @2.000000000\n"},
		{name: "file in the way", dst: "/a file \"\"", path: "a/b", err: "make directory a/b"},
		{name: "file at the end", dst: "/a file \"\"", path: "a", err: "not a directory"},
		{name: "loop", dst: "/a link -> a", path: "a/b", err: "too many levels"},
		{name: "whiteout", path: "a/.wh.b", err: "mean deletions"},
		{name: "root", path: "/..", want: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, walk bool) {
				r, dir := makeRoot(t, c.dst, walk)
				c.m.Owner = *self()
				made, err := r.MkdirAll(c.path, c.m)
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("error is %v, want %q", err, c.err)
					}
					return
				}
				if err != nil || !slices.Equal(made, c.made) {
					t.Errorf("made %q, %v; want %q", made, err, c.made)
				}
				checkTree(t, dir, c.want, times...)
			})
		})
	}
}

func TestMkdirOwner(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r, dir := makeRoot(t, "/sg dir 2775 5:6", false)
	if _, err := r.MkdirAll("sg/a/b", Mkdir{Owner: Owner{7, 8}}); err != nil {
		t.Fatal(err)
	}
	checkTree(t, dir, "/sg dir 2775 5:6\n/sg/a dir 0755 7:8\n/sg/a/b dir 0755 7:8\n")
}

func TestRemoveAll(t *testing.T) {
	t.Parallel()
	const spec = "/a/b/c file \"\"\n/a/b/p fifo\n/a/l link -> /keep\n/keep/f file \"\"\n/l link -> keep"
	for path, want := range map[string]string{
		"a": "/keep dir 0755\n/keep/f file 0644 0 bytes\n/l link 0777 -> keep\n",
		"l": "/a dir 0755\n/a/b dir 0755\n/a/b/c file 0644 0 bytes\n/a/b/p fifo 0644\n/a/l link 0777 -> /keep\n/keep dir 0755\n/keep/f file 0644 0 bytes\n",
		// The link in the middle is followed, inside the root.
		"/a/l/f":   "/a dir 0755\n/a/b dir 0755\n/a/b/c file 0644 0 bytes\n/a/b/p fifo 0644\n/a/l link 0777 -> /keep\n/keep dir 0755\n/l link 0777 -> keep\n",
		"a/b/../b": "/a dir 0755\n/a/l link 0777 -> /keep\n/keep dir 0755\n/keep/f file 0644 0 bytes\n/l link 0777 -> keep\n",
	} {
		bothWays(t, func(t *testing.T, walk bool) {
			r, dir := makeRoot(t, spec, walk)
			if err := r.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			checkTree(t, dir, want, fstree.NoOwner)
			for _, gone := range []string{path, "no", "no/such", "keep/f/x"} {
				if err := r.RemoveAll(gone); err != nil {
					t.Errorf("RemoveAll(%q): %v", gone, err)
				}
			}
			for _, root := range []string{"", "/", ".", "..", "keep/.."} {
				if err := r.RemoveAll(root); err == nil {
					t.Errorf("RemoveAll(%q) has no error", root)
				}
			}
		})
	}
}

func TestRemoveModes(t *testing.T) {
	t.Parallel()
	r, dir := makeRoot(t, "/a/b/c/f file \"\"", false)
	for _, d := range []string{"a/b/c", "a/b", "a"} {
		os.Chmod(filepath.Join(dir, d), 0)
	}
	if err := r.RemoveAll("a"); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveDeep(t *testing.T) {
	t.Parallel()
	r, dir := makeRoot(t, "/d dir", false)
	makeDeep(t, filepath.Join(dir, "d"), strings.Repeat("n", 40), 700)
	before := removeDepth * 4
	if err := r.RemoveAll("d"); err != nil {
		t.Fatalf("with few descriptors (%d): %v", before, err)
	}
	checkTree(t, dir, "")
}

func TestNewRoot(t *testing.T) {
	t.Parallel()
	_, dir := makeRoot(t, "/d/f file \"x\"", false)
	f, err := os.Open(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRoot(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := r.ReadFile("f", 10); err != nil || string(b) != "x" {
		t.Errorf("ReadFile: %q, %v", b, err)
	}
	if _, err := OpenRoot(filepath.Join(dir, "d/f")); err == nil {
		t.Error("a file is a root")
	}
	if _, err := OpenRoot(filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenRoot of nothing: %v", err)
	}
	file, err := os.Open(filepath.Join(dir, "d/f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := NewRoot(file); err == nil {
		t.Error("an open file is a root")
	}
}

func TestStat(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, walk bool) {
		r, _ := makeRoot(t, "/f file 4640 \"xyz\" @5.000000006\n/l link -> f @7.000000000\n/d dir 1777", walk)
		own := *self()
		for _, c := range []struct {
			path   string
			follow bool
			want   Info
		}{
			{"f", false, Info{Mode: 0o640 | fs.ModeSetuid, Size: 3, ModTime: time.Unix(5, 6)}},
			{"l", true, Info{Mode: 0o640 | fs.ModeSetuid, Size: 3, ModTime: time.Unix(5, 6)}},
			{"l", false, Info{Mode: 0o777 | fs.ModeSymlink, Size: 1, ModTime: time.Unix(7, 0), Link: "f"}},
		} {
			c.want.UID, c.want.GID = own.UID, own.GID
			if got, err := r.Stat(c.path, c.follow); err != nil || got != c.want {
				t.Errorf("Stat(%q, %v) = %+v, %v; want %+v", c.path, c.follow, got, err, c.want)
			}
		}
		if got, err := r.Stat("d", true); err != nil || got.Mode != 0o777|fs.ModeDir|fs.ModeSticky {
			t.Errorf("Stat(d) = %+v, %v", got, err)
		}
		if _, err := r.Stat("no", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(no): %v", err)
		}
	})
}

func TestPutFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	bothWays(t, func(t *testing.T, walk bool) {
		r, dir := makeRoot(t, "/d dir @5.000000000\n/l link -> d/x @6.000000000", walk)
		put := func(name, body, dest string) error {
			return r.PutFile(ctx, name, strings.NewReader(body), 0o640, time.Unix(9, 9), Put{Dest: dest, Owner: self()})
		}
		for _, err := range []error{put("f", "1", "/d"), put("f", "2", "/d/g"), put("f", "3", "/n/"), put("f", "4", "/l"), put("f", "5", "/d/g")} {
			if err != nil {
				t.Error(err)
			}
		}
		os.Chtimes(filepath.Join(dir, "n"), time.Unix(1, 0), time.Unix(1, 0))
		checkTree(t, dir, "/d dir 0755 @5.000000000\n/d/f file 0640 \"1\" @9.000000009\n/d/g file 0640 \"5\" @9.000000009\n/d/x file 0640 \"4\" @9.000000009\n/l link 0777 -> d/x @6.000000000\n/n dir 0755 @1.000000000\n/n/f file 0640 \"3\" @9.000000009\n", fstree.NoOwner, fstree.Contents, fstree.Times)
		for _, bad := range []string{"", ".", "..", "a/b", "a\x00"} {
			if err := put(bad, "", "/d/"); !errors.Is(err, define.ErrInvalid) {
				t.Errorf("name %q: %v", bad, err)
			}
		}
		if err := put(".wh.x", "", "/d/"); !errors.Is(err, errWhiteoutName) {
			t.Errorf("whiteout: %v", err)
		}
		if err := put("f", "", "/"); err != nil {
			t.Errorf("to the root: %v", err)
		}
		if err := put("d", "", "/"); !errors.Is(err, errDirInWay) {
			t.Errorf("over a directory: %v", err)
		}
	})
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	in := makeTar(t, tarEntry{name: "a/f", body: "x"})
	for _, b := range compressed(t, in) {
		src, dir := makeRoot(t, "/not.tar.gz file \"text\"\n/empty.tar file \"\"", false)
		if err := os.WriteFile(filepath.Join(dir, "archive"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		sel, err := src.Select(ctx, Select{Patterns: []string{"archive", "not.tar.gz", "empty.tar"}})
		if err != nil {
			t.Fatal(err)
		}
		dst, out := makeRoot(t, "", false)
		if err := sel.Put(ctx, dst, Put{Dest: "/d/", Owner: self(), Unpack: true}); err != nil {
			t.Fatal(err)
		}
		want := "/d dir 0755\n/d/a dir 0755\n/d/a/f file 0644 \"x\"\n/d/empty.tar file 0644 \"\"\n/d/not.tar.gz file 0644 \"text\"\n"
		checkTree(t, out, want, fstree.NoOwner, fstree.Contents)

		dst, out = makeRoot(t, "", false)
		if err := dst.PutFile(ctx, "u", bytes.NewReader(b), 0o600, time.Time{}, Put{Dest: "/d", Owner: self(), Unpack: true}); err != nil {
			t.Fatal(err)
		}
		if err := dst.PutFile(ctx, "u", strings.NewReader("text"), 0o600, time.Time{}, Put{Dest: "/d", Owner: self(), Unpack: true}); err != nil {
			t.Fatal(err)
		}
		checkTree(t, out, "/d dir 0755\n/d/a dir 0755\n/d/a/f file 0644 \"x\"\n/d/u file 0600 \"text\"\n", fstree.NoOwner, fstree.Contents)
	}
}

func TestTar(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 200)
	spec := fmt.Sprintf("/d/f file 4755 \"x\" @5.500000000 user.a=\"v\"\n/d/h hard /d/f\n/d/l link -> f @6.000000000\n/d/p fifo 0600 @7.000000000\n/d/s socket\n/d/%s file 0644 \"\" @8.000000000\n/d/z dir 0700 @9.000000000\n/d dir @10.000000000", long)
	bothWays(t, func(t *testing.T, walk bool) {
		r, _ := makeRoot(t, spec, walk)
		var a, b bytes.Buffer
		if err := r.Tar(context.Background(), "/d", &a); err != nil {
			t.Fatal(err)
		}
		if err := r.Tar(context.Background(), "d/", &b); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("a second stream differs (%v)", err)
		}
		var got []string
		tr := tar.NewReader(bytes.NewReader(a.Bytes()))
		for {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s %c %o %d %s%s %d %s", h.Name, h.Typeflag, h.Mode, h.Size, h.Linkname, h.PAXRecords["SCHILY.xattr.user.a"], h.ModTime.UnixNano()/1e8, h.Format))
		}
		want := []string{
			"f 0 4755 1 v 50 PAX", "h 1 4755 0 f 50 USTAR", "l 2 777 0 f 60 USTAR",
			long + " 0 644 0  80 PAX", "p 6 600 0  70 USTAR", "z/ 5 700 0  90 USTAR",
		}
		if !slices.Equal(got, want) {
			t.Errorf("members are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		// What Tar writes, Extract reads.
		dst, out := makeRoot(t, "", walk)
		if err := dst.Extract(context.Background(), &a, Extract{Dest: "/", Owner: self()}); err != nil {
			t.Fatal(err)
		}
		checkTree(t, out, "/f file 4755 \"x\" user.a=\"v\"\n/h hard /f\n/l link 0777 -> f\n/"+long+" file 0644 \"\"\n/p fifo 0600\n/z dir 0700\n", fstree.NoOwner, fstree.Contents)

		b.Reset()
		if err := r.Tar(context.Background(), "d/f", &b); err != nil {
			t.Fatal(err)
		}
		if h, err := tar.NewReader(&b).Next(); err != nil || h.Name != "f" {
			t.Errorf("a file as the tree: %+v, %v", h, err)
		}
		if err := r.Tar(context.Background(), "no", io.Discard); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Tar of nothing: %v", err)
		}
	})
}

// TestErrorsQuote: hostile names reach no terminal as they are.
func TestErrorsQuote(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, "", false)
	evil := "a\x1b]0;x\a\nb\u202e"
	for _, err := range []error{
		func() error { _, err := r.Stat(evil, true); return err }(),
		func() error { _, err := r.Select(context.Background(), Select{Patterns: []string{evil}}); return err }(),
		r.Extract(context.Background(), bytes.NewReader(makeTar(t, tarEntry{name: "../" + evil})), Extract{Dest: "/"}),
		func() error { _, err := r.User(evil); return err }(),
		fail("x", evil, unix.EIO),
	} {
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\a\n\u202e") {
			t.Errorf("error %q", err)
		}
	}
}
