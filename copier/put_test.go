package copier

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/tests/fstree"
)

// putCase is one COPY: two trees, an instruction, and the tree after it.
type putCase struct {
	name     string
	src, dst string
	patterns string
	dest     string
	sel      Select
	put      Put
	want     string
	err      string // part of the error
	is       error
	opts     []fstree.Option
}

func (c putCase) run(t *testing.T, walk bool) {
	src, _ := makeRoot(t, c.src, walk)
	dst, dir := makeRoot(t, c.dst, walk)
	c.sel.Patterns = strings.Fields(c.patterns)
	ctx := context.Background()
	sel, err := src.Select(ctx, c.sel)
	if err == nil {
		if c.put.Owner == nil {
			c.put.Owner = self()
		}
		c.put.Dest = c.dest
		err = sel.Put(ctx, dst, c.put)
	}
	if c.err != "" {
		if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("error is %v, want one line with %q", err, c.err)
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("error %v is no %v", err, c.is)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	opts := c.opts
	if opts == nil {
		opts = []fstree.Option{fstree.NoOwner, fstree.Contents}
	}
	checkTree(t, dir, c.want, opts...)
}

// The rules are those of the Dockerfile reference, COPY; where its text is
// silent, those of BuildKit.
var putCases = []putCase{
	{name: "file to new name", src: `/f file 0640 "x"`, patterns: "f", dest: "/a/b",
		want: "/a dir 0755\n/a/b file 0640 \"x\"\n"},
	{name: "file to new directory", src: `/f file "x"`, patterns: "f", dest: "/a/b/",
		want: "/a dir 0755\n/a/b dir 0755\n/a/b/f file 0644 \"x\"\n"},
	{name: "file to existing directory", src: `/f file "x"`, dst: "/a dir 0700", patterns: "f", dest: "/a",
		want: "/a dir 0700\n/a/f file 0644 \"x\"\n"},
	{name: "file replaces file", src: `/f file "x"`, dst: `/a file 0600 "longer"`, patterns: "f", dest: "/a",
		want: "/a file 0644 \"x\"\n"},
	{name: "file replaces where a link leads", src: `/f file "x"`, dst: "/a link -> b/c\n/b dir", patterns: "f", dest: "/a",
		want: "/a link 0777 -> b/c\n/b dir 0755\n/b/c file 0644 \"x\"\n"},
	{name: "file through a link to a directory", src: `/f file "x"`, dst: "/a link -> /b\n/b dir", patterns: "f", dest: "/a",
		want: "/a link 0777 -> /b\n/b dir 0755\n/b/f file 0644 \"x\"\n"},
	{name: "file into a dangling link with a slash", src: `/f file "x"`, dst: "/a link -> /b/c", patterns: "f", dest: "/a/",
		want: "/a link 0777 -> /b/c\n/b dir 0755\n/b/c dir 0755\n/b/c/f file 0644 \"x\"\n"},
	{name: "file below a file", src: `/f file "x"`, dst: `/a file ""`, patterns: "f", dest: "/a/b", err: "not a directory"},
	{name: "file below a file with a slash", src: `/f file "x"`, dst: `/a file ""`, patterns: "f", dest: "/a/", err: "not a directory"},
	{name: "file over a directory of its name", src: `/f file "x"`, dst: "/d/f dir", patterns: "f", dest: "/d/", err: "a directory of that name is in the way"},
	{name: "directory content to new directory", src: "/d/s/f file 0600 \"x\"\n/d dir 0700", patterns: "d", dest: "/new",
		want: "/new dir 0755\n/new/s dir 0755\n/new/s/f file 0600 \"x\"\n"},
	{name: "directory content with slashes", src: `/d/f file "x"`, patterns: "d/", dest: "/new/",
		want: "/new dir 0755\n/new/f file 0644 \"x\"\n"},
	{name: "all to the root", src: "/f file \"x\"\n/etc/new file \"n\"\n/etc dir 0750", dst: "/etc/old file \"o\"\n/etc dir 0700", patterns: ".", dest: "/",
		want: "/etc dir 0750\n/etc/new file 0644 \"n\"\n/etc/old file 0644 \"o\"\n/f file 0644 \"x\"\n"},
	{name: "destination directory keeps its mode", src: "/d/f file \"x\"\n/d dir 0700", dst: "/e dir 1777", patterns: "d", dest: "/e",
		want: "/e dir 1777\n/e/f file 0644 \"x\"\n"},
	{name: "directory over a file", src: "/d dir", dst: `/e file ""`, patterns: "d", dest: "/e", err: "not a directory"},
	{name: "subdirectory over a file", src: "/d/s dir", dst: `/e/s file ""`, patterns: "d", dest: "/e", err: "is in the way"},
	{name: "subdirectory over a link", src: "/d/lib/x file \"\"", dst: "/lib link -> usr/lib\n/usr/lib dir", patterns: "d", dest: "/", err: "symbolic link of that name is in the way"},
	{name: "file replaces link below", src: `/d/f file "x"`, dst: "/e/f link -> ../g\n/g file \"keep\"", patterns: "d", dest: "/e",
		want: "/e dir 0755\n/e/f file 0644 \"x\"\n/g file 0644 \"keep\"\n"},
	{name: "link replaces file below", src: `/d/f link -> z`, dst: "/e/f file \"\"", patterns: "d", dest: "/e",
		want: "/e dir 0755\n/e/f link 0777 -> z\n"},
	{name: "several files to a directory", src: "/a file \"a\"\n/b file \"b\"", patterns: "a b", dest: "/d/",
		want: "/d dir 0755\n/d/a file 0644 \"a\"\n/d/b file 0644 \"b\"\n"},
	{name: "several files to an existing directory", src: "/a file \"a\"\n/b file \"b\"", dst: "/d dir", patterns: "a b", dest: "/d",
		want: "/d dir 0755\n/d/a file 0644 \"a\"\n/d/b file 0644 \"b\"\n"},
	{name: "several files to a file", src: "/a file \"a\"\n/b file \"b\"", patterns: "*", dest: "/d", err: "2 sources need a directory", is: define.ErrInvalid},
	{name: "later source wins", src: "/a/f file \"1\"\n/b/f file \"2\"\n/c/f file \"3\"", patterns: "a/f c/f b/f", dest: "/",
		want: "/f file 0644 \"2\"\n"},
	{name: "wildcard", src: "/a.go file \"a\"\n/b.go file \"b\"\n/c.txt file \"\"", patterns: "?.go", dest: "/",
		want: "/a.go file 0644 \"a\"\n/b.go file 0644 \"b\"\n"},
	{name: "wildcard matches a directory's content", src: "/da/f file \"a\"\n/db/g file \"b\"", patterns: "d*", dest: "/x/",
		want: "/x dir 0755\n/x/f file 0644 \"a\"\n/x/g file 0644 \"b\"\n"},
	{name: "wildcard in the middle", src: "/da/f file \"a\"\n/db/g file \"b\"", patterns: "*/g", dest: "/x/",
		want: "/x dir 0755\n/x/g file 0644 \"b\"\n"},
	{name: "escaped bracket", src: "/arr[0].txt file \"a\"", patterns: "arr[[]0].txt", dest: "/",
		want: "/arr[0].txt file 0644 \"a\"\n"},
	{name: "bad pattern", src: "/a file \"\"", patterns: "a[", dest: "/", err: "malformed pattern", is: define.ErrInvalid},
	{name: "optional wildcard", src: "/a file \"a\"", patterns: "a b*", dest: "/",
		want: "/a file 0644 \"a\"\n"},
	{name: "nothing matches", src: "/a file \"a\"", patterns: "b*", dest: "/", err: "source b*: no file matches", is: define.ErrNotFound},
	{name: "missing source", src: "/a file \"a\"", patterns: "a b", dest: "/", err: "source b: no such file", is: define.ErrNotFound},
	{name: "dot dot is text", src: "/f file \"x\"", patterns: "../../f", dest: "/",
		want: "/f file 0644 \"x\"\n"},
	{name: "leading slash", src: "/d/f file \"x\"", patterns: "/d/f", dest: "/g",
		want: "/g file 0644 \"x\"\n"},
	{name: "link to a file is followed", src: "/l link -> d/f\n/d/f file \"x\"", patterns: "l", dest: "/",
		want: "/l file 0644 \"x\"\n"},
	{name: "link to a directory is followed", src: "/l link -> /d\n/d/f file \"x\"", patterns: "l", dest: "/",
		want: "/f file 0644 \"x\"\n"},
	{name: "links of a wildcard are followed", src: "/l1 link -> d/f\n/d/f file \"x\"", patterns: "l*", dest: "/",
		want: "/l1 file 0644 \"x\"\n"},
	{name: "links below stay links", src: "/d/l link -> ../x\n/x file \"\"", patterns: "d", dest: "/",
		want: "/l link 0777 -> ../x\n"},
	{name: "dangling link", src: "/l link -> /etc/passwd", patterns: "l", dest: "/", err: "symbolic link to /etc/passwd, which does not exist inside", is: define.ErrNotFound},
	{name: "FIFO", src: "/d/p fifo 0640", patterns: "d", dest: "/", want: "/p fifo 0640\n"},
	{name: "FIFO by name", src: "/p fifo 0640", patterns: "p", dest: "/q", want: "/q fifo 0640\n"},
	{name: "socket is left out", src: "/d/s socket\n/d/f file \"x\"", patterns: "d", dest: "/", want: "/f file 0644 \"x\"\n"},
	{name: "socket by name", src: "/s socket", patterns: "s", dest: "/", err: "it is a socket"},
	{name: "whiteout name", src: "/d/.wh.etc file \"\"", patterns: "d", dest: "/", err: "mean deletions"},
	{name: "whiteout name of a source", src: "/.wh.etc file \"\"", patterns: ".wh.etc", dest: "/", err: "mean deletions"},
	{name: "whiteout name as destination", src: "/f file \"\"", patterns: "f", dest: "/.wh.etc", err: "mean deletions"},
	{name: "whiteout name as destination directory", src: "/f file \"\"", patterns: "f", dest: "/.wh.etc/", err: "mean deletions"},
	{name: "hard links", src: "/d/a/f file \"x\"\n/d/b/g hard /d/a/f\n/d/h hard /d/a/f", patterns: "d", dest: "/",
		want: "/a dir 0755\n/a/f file 0644 \"x\"\n/b dir 0755\n/b/g hard /a/f\n/h hard /a/f\n"},
	{name: "hard link to a link", src: "/d/a link -> x\n/d/b hard /d/a", patterns: "d", dest: "/",
		want: "/a link 0777 -> x\n/b hard /a\n"},
	{name: "hard link replaces", src: "/d/a file \"x\"\n/d/b hard /d/a", dst: "/b file \"old\"", patterns: "d", dest: "/",
		want: "/a file 0644 \"x\"\n/b hard /a\n"},
	{name: "hard links of overwritten names", src: "/d/x file \"old\"\n/y hard /d/x\n/e/x file \"new\"", patterns: "d e y", dest: "/o/",
		want: "/o dir 0755\n/o/x file 0644 \"new\"\n/o/y file 0644 \"old\"\n"},
	{name: "chmod", src: "/d/f file 0600 \"x\"\n/d/s dir 0700\n/d/s/l link -> f", patterns: "d", dest: "/n",
		put:  Put{Mode: func(m fs.FileMode) fs.FileMode { return 0o711 }},
		want: "/n dir 0711\n/n/f file 0711 \"x\"\n/n/s dir 0711\n/n/s/l link 0777 -> f\n"},
	{name: "chmod leaves parents", src: "/f file 0600 \"x\"", patterns: "f", dest: "/n/m/f",
		put:  Put{Mode: func(m fs.FileMode) fs.FileMode { return 0o400 | fs.ModeSetuid }},
		want: "/n dir 0755\n/n/m dir 0755\n/n/m/f file 4400 \"x\"\n"},
	{name: "attributes", src: "/d/f file 0600 \"x\" user.a=\"1\"\n/d/s dir user.b=\"2\"", dst: "/s dir user.c=\"old\"", patterns: "d", dest: "/",
		want: "/f file 0600 \"x\" user.a=\"1\"\n/s dir 0755 user.b=\"2\"\n"},
	{name: "special bits", src: "/d/f file 6755 \"x\"\n/d/s dir 3777\n/d/s/g file 0644 \"\"", patterns: "d", dest: "/",
		want: "/f file 6755 \"x\"\n/s dir 3777\n/s/g file 0644 \"\"\n"},
	{name: "parents", src: "/x/a.txt file \"1\"\n/y/a.txt file \"2\"\n/y dir 0711", patterns: "./x/a.txt ./y/a.txt", dest: "/p/",
		sel:  Select{Parents: true},
		want: "/p dir 0755\n/p/x dir 0755\n/p/x/a.txt file 0644 \"1\"\n/p/y dir 0711\n/p/y/a.txt file 0644 \"2\"\n"},
	{name: "parents with a pivot", src: "/x/y/a.txt file \"1\"\n/x/y/b.txt file \"2\"\n/x/y/c file \"\"", patterns: "./x/./y/*.txt", dest: "/p/",
		sel:  Select{Parents: true},
		want: "/p dir 0755\n/p/y dir 0755\n/p/y/a.txt file 0644 \"1\"\n/p/y/b.txt file 0644 \"2\"\n"},
	{name: "parents with stars", src: "/src/a.txt file \"1\"\n/src/x/b.txt file \"2\"\n/src/x/y/c.txt file \"3\"\n/src/x/z/d file \"\"\n/o/e.txt file \"\"", patterns: "./src/**/*.txt", dest: "/p/",
		sel:  Select{Parents: true},
		want: "/p dir 0755\n/p/src dir 0755\n/p/src/a.txt file 0644 \"1\"\n/p/src/x dir 0755\n/p/src/x/b.txt file 0644 \"2\"\n/p/src/x/y dir 0755\n/p/src/x/y/c.txt file 0644 \"3\"\n"},
	{name: "parents takes a directory whole", src: "/a/b/c file \"1\"\n/a/d file \"\"", patterns: "a/b", dest: "/",
		sel:  Select{Parents: true},
		want: "/a dir 0755\n/a/b dir 0755\n/a/b/c file 0644 \"1\"\n"},
	{name: "parents keeps what exists", src: "/a/f file \"1\"\n/a dir 0700", dst: "/a dir 0711", patterns: "a/f", dest: "/",
		sel:  Select{Parents: true},
		want: "/a dir 0711\n/a/f file 0644 \"1\"\n"},
	{name: "parents finds nothing", src: "/a/f file \"1\"", patterns: "a/g", dest: "/", sel: Select{Parents: true}, err: "source a/g: no such file"},
	{name: "exclude", src: "/d/a.txt file \"\"\n/d/b.md file \"b\"\n/d/s/c.txt file \"\"\n/d/s/keep.txt file \"k\"", patterns: "d", dest: "/",
		sel:  Select{Exclude: []string{"**/*.txt", "!s/keep.txt"}},
		want: "/b.md file 0644 \"b\"\n/s dir 0755\n/s/keep.txt file 0644 \"k\"\n"},
	{name: "exclude of wildcards", src: "/home.txt file \"\"\n/home.md file \"b\"", patterns: "hom*", dest: "/",
		sel:  Select{Exclude: []string{"*.txt"}},
		want: "/home.md file 0644 \"b\"\n"},
	{name: "exclude directory", src: "/d/a/f file \"\"\n/d/b/f file \"b\"", patterns: "d", dest: "/",
		sel:  Select{Exclude: []string{"a"}},
		want: "/b dir 0755\n/b/f file 0644 \"b\"\n"},
	{name: "exclude all by name", src: "/a file \"\"", patterns: "a", dest: "/", sel: Select{Exclude: []string{"a"}}, err: "left out by --exclude"},
	{name: "odd names", src: "\"/d/ \\t\\x1b*?[\" file \"1\"\n\"/d/-rf\" file \"2\"\n\"/d/\\xff\\n\" file \"3\"", patterns: "d", dest: "/",
		want: "\"/ \\t\\x1b*?[\" file 0644 \"1\"\n/-rf file 0644 \"2\"\n\"/\\xff\\n\" file 0644 \"3\"\n"},
	{name: "NUL in the destination", src: "/a file \"\"", patterns: "a", dest: "/x\x00y", err: "destination"},
}

func TestPut(t *testing.T) {
	t.Parallel()
	for _, c := range putCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, c.run)
		})
	}
}

// ignoreList leaves out the paths in it and, unless it says otherwise, what is
// below.
type ignoreList struct {
	out  []string
	back []string // exceptions
}

func (l ignoreList) Excluded(p string) (bool, bool, error) {
	under := func(dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	if slices.ContainsFunc(l.back, under) {
		return false, true, nil
	}
	return slices.ContainsFunc(l.out, under),
		slices.ContainsFunc(l.back, func(b string) bool { return strings.HasPrefix(b, p+"/") }), nil
}

func TestPutIgnore(t *testing.T) {
	t.Parallel()
	const src = "/a/f file \"a\"\n/b/g file \"b\"\n/b/h/i file \"i\"\n/c/d file \"c\"\n/la link -> a/f"
	for _, c := range []putCase{
		{name: "all", patterns: ".", sel: Select{Ignore: ignoreList{out: []string{"a", "la"}}},
			want: "/b dir 0755\n/b/g file 0644 \"b\"\n/b/h dir 0755\n/b/h/i file 0644 \"i\"\n/c dir 0755\n/c/d file 0644 \"c\"\n"},
		{name: "exception", patterns: ".", sel: Select{Ignore: ignoreList{out: []string{"a", "b", "c", "la"}, back: []string{"b/h/i"}}},
			want: "/b dir 0755\n/b/h dir 0755\n/b/h/i file 0644 \"i\"\n"},
		{name: "exception below the source", patterns: "b", sel: Select{Ignore: ignoreList{out: []string{"b"}, back: []string{"b/h"}}},
			want: "/h dir 0755\n/h/i file 0644 \"i\"\n"},
		{name: "ignored source", patterns: "a/f", sel: Select{Ignore: ignoreList{out: []string{"a"}}}, err: "excluded by the ignore file", is: define.ErrNotFound},
		{name: "ignored directory", patterns: "a", sel: Select{Ignore: ignoreList{out: []string{"a"}}}, err: "excluded by the ignore file"},
		{name: "link to ignored", patterns: "la", sel: Select{Ignore: ignoreList{out: []string{"a"}}}, err: "excluded by the ignore file"},
		{name: "ignored matches", patterns: "a/*", sel: Select{Ignore: ignoreList{out: []string{"a/f"}}}, err: "excluded by the ignore file"},
		{name: "parents", patterns: "b/**", sel: Select{Parents: true, Ignore: ignoreList{out: []string{"b/h"}}},
			want: "/b dir 0755\n/b/g file 0644 \"b\"\n"},
	} {
		c.src, c.dest = src, "/"
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, false)
		})
	}
}

func TestPutTimes(t *testing.T) {
	t.Parallel()
	c := putCase{
		src:  "/d/f file \"x\" @100.000000001\n/d/s/l link -> z @200.000000002\n/d/s dir @300.000000003\n/d/e dir @-1.500000000\n/d dir @400.000000000\n/d/h hard /d/f",
		dst:  "/old/e/x file \"\" @5.000000000\n/old/e dir @6.000000000\n/old dir @7.000000000",
		opts: []fstree.Option{fstree.NoOwner, fstree.Times},
	}
	t.Run("existing", func(t *testing.T) {
		t.Parallel()
		c := c
		c.patterns, c.dest = "d", "/old"
		c.want = `
/old dir 0755 @7.000000000
/old/e dir 0755 @-1.500000000
/old/e/x file 0644 0 bytes @5.000000000
/old/f file 0644 1 bytes @100.000000001
/old/h hard /old/f
/old/s dir 0755 @300.000000003
/old/s/l link 0777 -> z @200.000000002
`
		bothWays(t, c.run)
	})
	t.Run("made", func(t *testing.T) {
		t.Parallel()
		c := c
		c.patterns, c.dest = "d/f d/h", "/old/new/deep/"
		c.want = `
/old dir 0755 @7.000000000
/old/e dir 0755 @6.000000000
/old/e/x file 0644 0 bytes @5.000000000
/old/new dir 0755 @7.000000000
/old/new/deep dir 0755 @7.000000000
/old/new/deep/f file 0644 1 bytes @100.000000001
/old/new/deep/h hard /old/new/deep/f
`
		bothWays(t, c.run)
	})
}

// With ModTime everything that is written has that time, in archives too.
func TestPutModTime(t *testing.T) {
	bothWays(t, func(t *testing.T, walk bool) {
		src, _ := makeRoot(t, "/d dir\n/d/s dir\n/d/s/f file \"x\"\n/d/s/l link -> f\n", walk)
		dst, dir := makeRoot(t, "", walk)
		var archive bytes.Buffer
		if err := src.Tar(t.Context(), "d", &archive); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(5, 0)
		p := Put{Dest: "/copied", ModTime: &at, Owner: self()}
		sel, err := src.Select(t.Context(), Select{Patterns: []string{"d"}})
		if err == nil {
			err = sel.Put(t.Context(), dst, p)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Dest, p.Unpack = "/unpacked", true
		if err := dst.PutFile(t.Context(), "a.tar", &archive, 0o644, time.Time{}, p); err != nil {
			t.Fatal(err)
		}
		p.Dest = "/one/"
		if err := dst.PutFile(t.Context(), "f", strings.NewReader("x"), 0o644, time.Now(), p); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"copied", "copied/s", "copied/s/f", "copied/s/l", "unpacked/s/f", "unpacked/s", "one/f"} {
			if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || !info.ModTime().Equal(at) {
				t.Errorf("%s: %v %v", name, info, err)
			}
		}
	})
}

func TestPutOwner(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const src = "/d/f file 4755 1000:1001 \"x\"\n/d/s dir 0700 2000:2001\n/d/s/l link 3000:3001 -> f\n/d/g file 0644 0:0 \"\""
	for _, c := range []putCase{
		{name: "kept", patterns: "d", dest: "/a/b", put: Put{Owner: nil},
			want: "/a dir 0755 0:0\n/a/b dir 0755 0:0\n/a/b/f file 4755 1000:1001 \"x\"\n/a/b/g file 0644 0:0 \"\"\n/a/b/s dir 0700 2000:2001\n/a/b/s/l link 0777 3000:3001 -> f\n"},
		{name: "given", patterns: "d", dest: "/a/b", put: Put{Owner: &Owner{7, 8}},
			want: "/a dir 0755 7:8\n/a/b dir 0755 7:8\n/a/b/f file 4755 7:8 \"x\"\n/a/b/g file 0644 7:8 \"\"\n/a/b/s dir 0700 7:8\n/a/b/s/l link 0777 7:8 -> f\n"},
		{name: "setgid parent", patterns: "d/g", dest: "/sg/", dst: "/sg dir 2755 5:6", put: Put{Owner: nil},
			want: "/sg dir 2755 5:6\n/sg/g file 0644 0:0 \"\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, _ := makeRoot(t, src, false)
			d, dir := makeRoot(t, c.dst, false)
			sel, err := s.Select(context.Background(), Select{Patterns: strings.Fields(c.patterns)})
			if err != nil {
				t.Fatal(err)
			}
			c.put.Dest = c.dest
			if err := sel.Put(context.Background(), d, c.put); err != nil {
				t.Fatal(err)
			}
			checkTree(t, dir, c.want, fstree.Contents)
		})
	}
}

func TestPutDevices(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bothWays(t, putCase{src: "/d/n char 0666 1,3\n/d/b block 0600 7,9", patterns: "d", dest: "/",
		want: "/b block 0600 7,9\n/n char 0666 1,3\n"}.run)
	bothWays(t, putCase{src: "/d/w char 0600 0,0", patterns: "d", dest: "/", err: "marks a deletion"}.run)
}

func TestPutCapability(t *testing.T) {
	t.Parallel()
	needRoot(t)
	// A file capability set of version 2: cap_net_raw, permitted.
	spec := `/f file 4755 "x" security.capability="\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" trusted.overlay.opaque="y" trusted.other="z"`
	c := putCase{src: spec, patterns: "f", dest: "/", put: Put{Owner: &Owner{12, 34}},
		opts: []fstree.Option{fstree.Contents}}
	c.want = `/f file 4755 12:34 "x" security.capability="\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"` + "\n"
	c.run(t, false)
}

func TestPutUnreadable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	c := putCase{src: "/d/f file 0000 \"x\"", patterns: "d", dest: "/", err: "open d/f: permission denied"}
	c.run(t, false)
}

func TestPutLarge(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, 4095, 4096, smallFile - 1, smallFile, smallFile + 1, 3<<20 + 17} {
		src, dir := makeRoot(t, "/d dir", false)
		if err := os.WriteFile(filepath.Join(dir, "d", "f"), fstree.Pattern(size), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, slow := range []bool{false, true} {
			dst, out := makeRoot(t, "", false)
			sel, err := src.Select(context.Background(), Select{Patterns: []string{"d"}})
			if err != nil {
				t.Fatal(err)
			}
			pt := Put{Dest: "/", Owner: self()}
			var sum int64
			pt.Progress = func(n int64) { sum += n }
			if err := putSlow(sel, dst, pt, slow); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(out, "f"))
			if err != nil || string(got) != string(fstree.Pattern(size)) {
				t.Errorf("%d bytes, slow %v: content differs (%v)", size, slow, err)
			}
			if sum != size {
				t.Errorf("progress adds up to %d, want %d", sum, size)
			}
		}
	}
}

// putSlow is Put, if wanted on file systems that share and splice nothing.
func putSlow(s *Selection, r *Root, p Put, slow bool) error {
	pt := newPutter(context.Background(), r, p)
	pt.copies.noClone.Store(slow)
	pt.copies.noRange.Store(slow)
	return pt.put(s)
}

func TestPutSparse(t *testing.T) {
	t.Parallel()
	for _, slow := range []bool{false, true} {
		src, dir := makeRoot(t, "/hole file 50000000 bytes sparse\n/both file 50000000 bytes sparse\n/end file 8192 bytes", false)
		f, err := os.OpenFile(filepath.Join(dir, "both"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte("start"), 0)
		f.WriteAt([]byte("middle"), 20_000_000)
		f.Close()
		f, _ = os.OpenFile(filepath.Join(dir, "end"), os.O_WRONLY, 0)
		f.WriteAt([]byte("end"), 30_000_000)
		f.Close()
		dst, out := makeRoot(t, "", false)
		sel, err := src.Select(context.Background(), Select{Patterns: []string{"."}})
		if err != nil {
			t.Fatal(err)
		}
		if err := putSlow(sel, dst, Put{Dest: "/", Owner: self()}, slow); err != nil {
			t.Fatal(err)
		}
		if a, b := fstree.MustDump(t, dir, fstree.Contents), fstree.MustDump(t, out, fstree.Contents); a != b {
			t.Errorf("copy is\n%swant\n%s", b, a)
		}
		if used := diskUsage(t, out); used > 1<<20 {
			t.Errorf("the copy uses %d bytes on disk: holes were filled", used)
		}
	}
}

func diskUsage(t *testing.T, dir string) (used int64) {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		used += blocks(t, filepath.Join(dir, e.Name())) * 512
	}
	return used
}

func TestPutDeep(t *testing.T) {
	t.Parallel()
	src, dir := makeRoot(t, "/d dir", false)
	name := strings.Repeat("n", 60)
	makeDeep(t, filepath.Join(dir, "d"), name, 200)
	dst, _ := makeRoot(t, "", false)
	sel, err := src.Select(context.Background(), Select{Patterns: []string{"d"}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := sel.Digests(context.Background(), DigestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sel.Put(context.Background(), dst, Put{Dest: "/d", Owner: self()}); err != nil {
		t.Fatal(err)
	}
	sel, err = dst.Select(context.Background(), Select{Patterns: []string{"d"}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := sel.Digests(context.Background(), DigestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Len() != 401 || !slices.Equal(a.List(), b.List()) {
		t.Errorf("the copy has %d objects, the source %d, or they differ", b.Len(), a.Len())
	}
	if err := dst.RemoveAll("d"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := src.RemoveAll("d"); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func TestPutChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(string) error{
		"grown":   func(p string) error { return os.WriteFile(p, []byte("longer"), 0o644) },
		"touched": func(p string) error { return os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)) },
		"gone":    os.Remove,
		"link": func(p string) error {
			os.Remove(p)
			return os.Symlink("/etc/passwd", p)
		},
		"fifo": func(p string) error {
			os.Remove(p)
			return mkfifo(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dir := makeRoot(t, "/d/f file \"x\"", false)
			dst, _ := makeRoot(t, "", false)
			sel, err := src.Select(context.Background(), Select{Patterns: []string{"d"}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sel.Digests(context.Background(), DigestOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := change(filepath.Join(dir, "d/f")); err != nil {
				t.Fatal(err)
			}
			err = sel.Put(context.Background(), dst, Put{Dest: "/", Owner: self()})
			if err == nil || !strings.Contains(err.Error(), "d/f changed while reading") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestPutCancel(t *testing.T) {
	t.Parallel()
	src, _ := makeRoot(t, "/d/f file \"x\"", false)
	dst, _ := makeRoot(t, "", false)
	ctx, cancel := context.WithCancel(context.Background())
	sel, err := src.Select(ctx, Select{Patterns: []string{"d"}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := sel.Put(ctx, dst, Put{Dest: "/"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	if _, err := sel.Digests(ctx, DigestOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Digests: %v", err)
	}
	if _, err := src.Select(ctx, Select{Patterns: []string{"."}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Select: %v", err)
	}
}
