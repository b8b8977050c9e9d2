package copier

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/tests/fstree"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

type extractCase struct {
	name    string
	members []tarEntry
	raw     []byte
	dst     string
	dest    string
	e       Extract
	want    string
	err     string
	is      error
	opts    []fstree.Option
}

func (c extractCase) run(t *testing.T, walk bool) {
	r, dir := makeRoot(t, c.dst, walk)
	raw := c.raw
	if raw == nil {
		raw = makeTar(t, c.members...)
	}
	if c.e.Dest = c.dest; c.dest == "" {
		c.e.Dest = "/"
	}
	if c.e.Owner == nil {
		c.e.Owner = self()
	}
	err := r.Extract(context.Background(), bytes.NewReader(raw), c.e)
	if c.err != "" {
		if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error is %v, want one line with %q", err, c.err)
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("error %v is no %v", err, c.is)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	if c.want != "" {
		opts := c.opts
		if opts == nil {
			opts = []fstree.Option{fstree.NoOwner, fstree.Contents}
		}
		checkTree(t, dir, c.want, opts...)
	}
}

const (
	dirT  = tar.TypeDir
	linkT = tar.TypeSymlink
	hardT = tar.TypeLink
)

var extractCases = []extractCase{
	{name: "plain", members: []tarEntry{{name: "a/", typ: dirT, mode: 0o700}, {name: "a/f", body: "x", mode: 0o4755}, {name: "l", typ: linkT, link: "a/f"}, {name: "h", typ: hardT, link: "a/f"}, {name: "p", typ: tar.TypeFifo, mode: 0o640}},
		want: "/a dir 0700\n/a/f file 4755 \"x\"\n/h hard /a/f\n/l link 0777 -> a/f\n/p fifo 0640\n"},
	{name: "below a destination", members: []tarEntry{{name: "./f", body: "x"}, {name: "/abs", body: "y"}}, dest: "/a/b",
		want: "/a dir 0755\n/a/b dir 0755\n/a/b/abs file 0644 \"y\"\n/a/b/f file 0644 \"x\"\n"},
	{name: "through a link inside", members: []tarEntry{{name: "l/f", body: "x"}}, dst: "/l link -> /d\n/d dir",
		want: "/d dir 0755\n/d/f file 0644 \"x\"\n/l link 0777 -> /d\n"},
	{name: "links out stay in", members: []tarEntry{{name: "l", typ: linkT, link: "/etc"}, {name: "l/passwd", body: "x"}, {name: "u", typ: linkT, link: "../../.."}, {name: "u/tmp/f", body: "y"}}, dest: "/d",
		want: "/d dir 0755\n/d/l link 0777 -> /etc\n/d/u link 0777 -> ../../..\n/etc dir 0755\n/etc/passwd file 0644 \"x\"\n/tmp dir 0755\n/tmp/f file 0644 \"y\"\n"},
	{name: "chain of links", members: []tarEntry{{name: "a", typ: linkT, link: "b"}, {name: "b", typ: linkT, link: ".."}, {name: "a/a/a/x", body: "x"}},
		want: "/a link 0777 -> b\n/b link 0777 -> ..\n/x file 0644 \"x\"\n"},
	{name: "directory over a link", members: []tarEntry{{name: "d", typ: dirT}, {name: "d/f", body: "x"}}, dst: "/d link -> /e\n/e/g file \"\"",
		want: "/d dir 0755\n/d/f file 0644 \"x\"\n/e dir 0755\n/e/g file 0644 \"\"\n"},
	{name: "link then file of that name", members: []tarEntry{{name: "d", typ: linkT, link: "/e"}, {name: "d", body: "x"}}, dst: "/e file \"keep\"",
		want: "/d file 0644 \"x\"\n/e file 0644 \"keep\"\n"},
	{name: "chmod through a link", members: []tarEntry{{name: "d", typ: linkT, link: "/e"}, {name: "d/s", typ: dirT, mode: 0o777}}, dst: "/e/s dir 0700",
		want: "/d link 0777 -> /e\n/e dir 0755\n/e/s dir 0777\n"},
	{name: "hard link to a link", members: []tarEntry{{name: "l", typ: linkT, link: "/x"}, {name: "h", typ: hardT, link: "l", mode: 0o777}},
		want: "/h link 0777 -> /x\n/l hard /h\n"},
	{name: "hard link, absolute target", members: []tarEntry{{name: "f", body: "x"}, {name: "h", typ: hardT, link: "/f"}}, dest: "/d",
		want: "/d dir 0755\n/d/f file 0644 \"x\"\n/d/h hard /d/f\n"},
	{name: "hard link outside", members: []tarEntry{{name: "h", typ: hardT, link: "../../etc/passwd"}}, err: "archive member h: hard link to ../../etc/passwd", is: define.ErrEscape},
	{name: "hard link to nothing", members: []tarEntry{{name: "h", typ: hardT, link: "no"}}, err: "archive member h: hard link to no: no such file"},
	{name: "hard link to a directory", members: []tarEntry{{name: "d", typ: dirT}, {name: "h", typ: hardT, link: "d"}}, err: "archive member h", is: define.ErrInvalid},
	{name: "hard link to itself", members: []tarEntry{{name: "f", body: "x"}, {name: "f", typ: hardT, link: "f"}}, want: "/f file 0644 \"x\"\n"},
	{name: "above", members: []tarEntry{{name: "../f", body: "x"}}, err: "archive member ../f: the name leads out", is: define.ErrEscape},
	{name: "above in the middle", members: []tarEntry{{name: "a/../../f", body: "x"}}, err: "leads out", is: define.ErrEscape},
	{name: "above, beside the destination", members: []tarEntry{{name: "../dest-evil/f", body: "x"}}, dest: "/dest", err: "leads out"},
	{name: "dots inside", members: []tarEntry{{name: "a/../b", body: "x"}}, want: "/b file 0644 \"x\"\n"},
	{name: "root as link", members: []tarEntry{{name: ".", typ: linkT, link: "/"}, {name: "f", body: ""}}, err: "archive member .: it would replace the destination", is: define.ErrInvalid},
	{name: "root as file", members: []tarEntry{{name: ".", typ: tar.TypeFifo}}, err: "it would replace the destination"},
	{name: "slash as link", members: []tarEntry{{name: "/", typ: linkT, link: "/x"}}, err: "it would replace the destination"},
	{name: "root as directory", members: []tarEntry{{name: "./", typ: dirT, mode: 0o700}}, dst: "/d dir 0755", dest: "/d", want: "/d dir 0755\n"},
	{name: "root as directory, made", members: []tarEntry{{name: "./", typ: dirT, mode: 0o700}}, dest: "/d", want: "/d dir 0700\n"},
	{name: "whiteout", members: []tarEntry{{name: "etc/.wh.passwd"}}, dst: "/etc/passwd file \"\"", err: "archive member etc/.wh.passwd: names that start with .wh."},
	{name: "opaque mark", members: []tarEntry{{name: "etc/.wh..wh..opq"}}, err: "names that start with .wh."},
	{name: "whiteout above", members: []tarEntry{{name: ".wh.x/y"}}, err: "names that start with .wh."},
	{name: "last wins", members: []tarEntry{{name: "f", body: "1"}, {name: "f", body: "22"}, {name: "g", typ: linkT, link: "f"}, {name: "g", typ: dirT}, {name: "h", typ: dirT}, {name: "h", body: "3"}},
		want: "/f file 0644 \"22\"\n/g dir 0755\n/h file 0644 \"3\"\n"},
	{name: "hard links do not share a later content", members: []tarEntry{{name: "f", body: "1"}, {name: "g", typ: hardT, link: "f"}, {name: "f", body: "2"}},
		want: "/f file 0644 \"2\"\n/g file 0644 \"1\"\n"},
	{name: "file over a full directory", members: []tarEntry{{name: "d", body: "x"}}, dst: "/d/f file \"\"", err: "archive member d: a directory that is not empty is in the way"},
	{name: "directory of a file", members: []tarEntry{{name: "f", body: "x"}, {name: "f/g", body: "y"}}, err: "archive member f/g"},
	{name: "directory after its files", members: []tarEntry{{name: "d/f", body: "x"}, {name: "d", typ: dirT, mode: 0o500, mtime: time.Unix(7, 0)}, {name: "d/g", body: "y"}},
		want: "/d dir 0500 @7.000000000\n/d/f file 0644 1 bytes @1000000000.000000000\n/d/g file 0644 1 bytes @1000000000.000000000\n", opts: []fstree.Option{fstree.NoOwner, fstree.Times}},
	{name: "times", members: []tarEntry{{name: "old/f", body: "x", mtime: time.Unix(-5, 0), format: tar.FormatPAX}, {name: "n/", typ: dirT, mtime: time.Unix(9, 5), format: tar.FormatPAX}, {name: "n/m/f"}}, dst: "/old dir @3.000000000",
		want: "/n dir 0755 @9.000000005\n/n/m dir 0755 @9.000000005\n/n/m/f file 0644 0 bytes @1000000000.000000000\n/old dir 0755 @3.000000000\n/old/f file 0644 1 bytes @-5.000000000\n", opts: []fstree.Option{fstree.NoOwner, fstree.Times}},
	{name: "attributes", members: []tarEntry{{name: "f", pax: map[string]string{"SCHILY.xattr.user.a": "\x001", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.security.selinux": "l"}}},
		want: "/f file 0644 \"\" user.a=\"\\x001\"\n"},
	{name: "mode", members: []tarEntry{{name: "f"}, {name: "d", typ: dirT}}, e: Extract{Mode: func(m fs.FileMode) fs.FileMode { return 0o711 }},
		want: "/d dir 0711\n/f file 0711 \"\"\n"},
	{name: "match", members: []tarEntry{{name: "a/f"}, {name: "b/f"}}, e: Extract{Match: func(n string) bool { return strings.HasPrefix(n, "b") }},
		want: "/b dir 0755\n/b/f file 0644 \"\"\n"},
	{name: "too many members", members: []tarEntry{{name: "a"}, {name: "b"}, {name: "c"}}, e: Extract{MaxMembers: 2}, err: "archive member c: the archive holds more than the 2 members", is: define.ErrInvalid},
	{name: "too many bytes", members: []tarEntry{{name: "a", body: "12"}, {name: "b", body: "34"}}, e: Extract{MaxBytes: 3}, err: "more than the limit allows of 3 bytes, after member b", is: define.ErrInvalid},
	{name: "global path", members: []tarEntry{{name: "g", typ: tar.TypeXGlobalHeader, pax: map[string]string{"path": "x"}}, {name: "a"}}, err: "global header sets path", is: define.ErrUnsupported},
	{name: "global comment", members: []tarEntry{{name: "g", typ: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "x"}}, {name: "a"}}, want: "/a file 0644 \"\"\n"},
	{name: "unknown type", members: []tarEntry{{name: "a", typ: 'Z'}}, err: "archive member a: type 'Z' is not supported", is: define.ErrUnsupported},
	{name: "whiteout device", members: []tarEntry{{name: "a", typ: tar.TypeChar}}, err: "archive member a: a character device 0:0 marks a deletion"},
	{name: "odd names", members: []tarEntry{{name: "a\tb\x1b\n"}, {name: "-rf"}, {name: strings.Repeat("l", 255)}, {name: "\xff\xfe"}},
		want: "/-rf file 0644 \"\"\n\"/a\\tb\\x1b\\n\" file 0644 \"\"\n/" + strings.Repeat("l", 255) + " file 0644 \"\"\n\"/\\xff\\xfe\" file 0644 \"\"\n"},
	{name: "name too long", members: []tarEntry{{name: strings.Repeat("l", 256)}}, err: "file name too long"},
	{name: "empty input", raw: []byte{}, err: "the archive is empty", is: define.ErrInvalid},
	{name: "no archive", raw: bytes.Repeat([]byte("FROM scratch\n"), 100), err: "not a tar archive", is: define.ErrInvalid},
	{name: "short no archive", raw: []byte("FROM scratch\n"), err: "", want: ""},
	{name: "empty archive", raw: make([]byte, 1024), want: ""},
}

func TestExtract(t *testing.T) {
	t.Parallel()
	for _, c := range extractCases {
		if c.name == "short no archive" {
			c.err = "the archive ended at 13 bytes before its first member"
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.name == "directory after its files" && os.Geteuid() != 0 {
				t.Skip("a directory that is not writable would keep the test from cleaning up")
			}
			bothWays(t, c.run)
		})
	}
}

func TestExtractOwners(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r, dir := makeRoot(t, "", false)
	in := makeTar(t, tarEntry{name: "d/", typ: dirT, uid: 1, gid: 2}, tarEntry{name: "d/f", body: "x", mode: 0o6755, uid: 3000000, gid: 4},
		tarEntry{name: "n", typ: tar.TypeChar, major: 1, minor: 3, mode: 0o666}, tarEntry{name: "b", typ: tar.TypeBlock, major: 7, minor: 300, mode: 0o600, gid: 6},
		tarEntry{name: "l", typ: linkT, link: "x", uid: 5})
	if err := r.Extract(context.Background(), bytes.NewReader(in), Extract{Dest: "/"}); err != nil {
		t.Fatal(err)
	}
	checkTree(t, dir, "/b block 0600 0:6 7,300\n/d dir 0755 1:2\n/d/f file 6755 3000000:4 1 bytes\n/l link 0777 5:0 -> x\n/n char 0666 0:0 1,3\n")
	for _, e := range []tarEntry{{name: "x", uid: 1<<32 - 1, format: tar.FormatPAX}, {name: "x", uid: 1 << 40, format: tar.FormatPAX}} {
		err := r.Extract(context.Background(), bytes.NewReader(makeTar(t, e)), Extract{Dest: "/"})
		if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "archive member x: owner") {
			t.Errorf("owner %d: %v", e.uid, err)
		}
	}
}

func TestExtractUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may")
	}
	r, _ := makeRoot(t, "", false)
	err := r.Extract(context.Background(), bytes.NewReader(makeTar(t, tarEntry{name: "n", typ: tar.TypeChar, major: 1, minor: 3})), Extract{Dest: "/", Owner: self()})
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "archive member n") {
		t.Errorf("device: %v", err)
	}
	var left []string
	err = r.Extract(context.Background(), bytes.NewReader(makeTar(t, tarEntry{name: "n", typ: tar.TypeChar, major: 1, minor: 3}, tarEntry{name: "f"})),
		Extract{Dest: "/", Owner: self(), DeviceRefused: func(name string) { left = append(left, name) }})
	if err != nil || len(left) != 1 || left[0] != "n" {
		t.Errorf("device left out: %q, %v", left, err)
	}
	err = r.Extract(context.Background(), bytes.NewReader(makeTar(t, tarEntry{name: "z", typ: tar.TypeChar})), Extract{Dest: "/", Owner: self(), DeviceRefused: func(string) {}})
	if err == nil || !strings.Contains(err.Error(), "0:0 marks a deletion") {
		t.Errorf("device 0:0: %v", err)
	}
	err = r.Extract(context.Background(), bytes.NewReader(makeTar(t, tarEntry{name: "f", uid: 12345})), Extract{Dest: "/"})
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "archive member f: give to 12345:0") {
		t.Errorf("owner: %v", err)
	}
	if err = r.Extract(context.Background(), bytes.NewReader(makeTar(t, tarEntry{name: "f", uid: 12345})), Extract{Dest: "/", IgnoreChownErrors: true}); err != nil {
		t.Errorf("owner ignored: %v", err)
	}
}

// compressed returns b in every format that Extract reads. Nothing here writes
// bzip2; its sample is the archive of one file "f" with "x\n".
func compressed(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"none": b}
	write := func(name string, w io.WriteCloser, err error, buf *bytes.Buffer) {
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
		out[name] = buf.Bytes()
	}
	var g, z, x bytes.Buffer
	write("gzip", gzip.NewWriter(&g), nil, &g)
	zw, err := zstd.NewWriter(&z)
	write("zstd", zw, err, &z)
	xw, err := xz.NewWriter(&x)
	write("xz", xw, err, &x)
	return out
}

// bzip2Sample is the output of tar and bzip2 for one file f with mode 0644,
// content "x\n", time 1.
const bzip2Sample = "425a68393141592653594953e0b10000765b90c91040007d840000e1001e400400000820005446a0000d06812251b5032001f4f0efb9082682422af9a59d5d72910862f608b34a1881acd4099823a58d6f7a8767c444f400045f1772453850904953e0b1"

func TestExtractCompressed(t *testing.T) {
	t.Parallel()
	in := makeTar(t, tarEntry{name: "f", body: "x"}, tarEntry{name: "big", body: string(fstree.Pattern(3 << 20))})
	for kind, b := range compressed(t, in) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r, dir := makeRoot(t, "", false)
			if err := r.Extract(context.Background(), bytes.NewReader(b), Extract{Dest: "/", Owner: self()}); err != nil {
				t.Fatal(err)
			}
			got, _ := os.ReadFile(filepath.Join(dir, "big"))
			if !bytes.Equal(got, fstree.Pattern(3<<20)) {
				t.Error("content differs")
			}
			if !IsArchive(b) || !IsArchive(b[:512]) {
				t.Error("IsArchive is false")
			}
			for _, cut := range []int{3, 20, len(b) / 2} {
				err := r.Extract(context.Background(), bytes.NewReader(b[:cut]), Extract{Dest: "/", Owner: self()})
				if err == nil {
					t.Errorf("cut at %d: no error", cut)
				} else if cut > 1000 && !strings.Contains(err.Error(), "truncated") {
					t.Errorf("cut at %d: %v", cut, err)
				}
			}
			if kind != "none" {
				bad := bytes.Clone(b)
				for i := len(bad) / 3; i < len(bad)/3+100; i++ {
					bad[i] ^= 0x55
				}
				if err := r.Extract(context.Background(), bytes.NewReader(bad), Extract{Dest: "/", Owner: self()}); err == nil {
					t.Error("damaged: no error")
				}
			}
		})
	}
}

func TestExtractBzip2(t *testing.T) {
	t.Parallel()
	b, err := hex.DecodeString(bzip2Sample)
	if err != nil {
		t.Fatal(err)
	}
	r, dir := makeRoot(t, "", false)
	if err := r.Extract(context.Background(), bytes.NewReader(b), Extract{Dest: "/", Owner: self()}); err != nil {
		t.Fatal(err)
	}
	checkTree(t, dir, "/f file 0644 \"x\\n\"\n", fstree.NoOwner, fstree.Contents)
	if !IsArchive(b) {
		t.Error("IsArchive is false")
	}
}

func TestIsArchive(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"nothing": nil, "text": bytes.Repeat([]byte("hello "), 1000), "zeros": make([]byte, 2048),
		"zip": append([]byte("PK\x03\x04"), make([]byte, 1000)...), "short": []byte("x"),
		"gzip of text": compressed(t, []byte("hello"))["gzip"], "xz of text": compressed(t, bytes.Repeat([]byte("hello"), 500))["xz"],
		"zstd of text": compressed(t, []byte("hello"))["zstd"], "BZh in text": []byte("BZh9 is how it starts, and then comes text"),
	} {
		if IsArchive(b) {
			t.Errorf("%s: IsArchive is true", name)
		}
	}
}

// TestExtractBombs: what a small input can do is bounded.
func TestExtractBombs(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, "", false)
	ctx := context.Background()
	try := func(name string, in io.Reader, e Extract, want string) {
		t.Helper()
		e.Dest, e.Owner = "/", self()
		err := within(t, name, func() error { return r.Extract(ctx, in, e) })
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error is %v, want %q", name, err, want)
		}
	}
	// A header that promises 1 GiB of PAX records.
	pax := rawHeader("pax", 'x', 1<<30)
	try("PAX header", io.MultiReader(bytes.NewReader(pax), zeroReader{}), Extract{}, "read uncompressed archive")
	// An old GNU sparse file of 2^63-1 bytes with nothing in it.
	try("huge size", bytes.NewReader(rawHeader("big", '0', 1<<62)), Extract{MaxBytes: 1 << 20}, "limit")
	try("huge size, no limit", bytes.NewReader(rawHeader("big", '0', 1<<62)), Extract{}, "truncated")
	// Gigabytes behind the end are not read.
	try("padding", io.MultiReader(bytes.NewReader(makeTar(t, tarEntry{name: "f"})), zeroReader{}), Extract{}, "")
	// A million empty gzip members.
	var empty bytes.Buffer
	w := gzip.NewWriter(&empty)
	w.Close()
	try("gzip members", bytes.NewReader(bytes.Repeat(empty.Bytes(), 1_000_000)), Extract{}, "empty")
	// 1 GiB of zeros in a megabyte.
	var bomb bytes.Buffer
	w = gzip.NewWriter(&bomb)
	w.Write(rawHeader("zeros", '0', 1<<30))
	io.CopyN(w, zeroReader{}, 200<<20)
	w.Close()
	try("ratio", bytes.NewReader(bomb.Bytes()), Extract{MaxBytes: 100 << 20}, "limit")
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// rawHeader is a header block that archive/tar would not write.
func rawHeader(name string, typ byte, size int64) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	if size < 1<<33 {
		copy(b[124:], fmt.Sprintf("%011o\x00", size))
	} else {
		b[124] = 0x80
		for i := range 8 {
			b[135-i] = byte(size >> (8 * i))
		}
	}
	copy(b[136:], "00000000001\x00        ")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if size >= 1<<33 {
		copy(b[257:], "ustar  \x00")
	}
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestExtractCancel(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, "", false)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	err := r.Extract(ctx, bytes.NewReader(makeTar(t, tarEntry{name: "f"})), Extract{Dest: "/"})
	if err == nil || err.Error() != "enough" {
		t.Errorf("error is %v", err)
	}
}

func FuzzExtract(f *testing.F) {
	for _, c := range extractCases {
		if c.raw != nil {
			f.Add(c.raw)
		} else {
			f.Add(makeTar(f, c.members...))
		}
	}
	for _, b := range compressed(f, makeTar(f, tarEntry{name: "f", body: "x"})) {
		f.Add(b)
	}
	out := canary(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := filepath.Join(filepath.Dir(out), fmt.Sprintf("root%d", os.Getpid()))
		fstree.Make(t, dir, "/l link -> ../canary\n/d dir")
		defer os.RemoveAll(dir)
		r, err := OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		IsArchive(in)
		err = r.Extract(context.Background(), bytes.NewReader(in), Extract{Dest: "/d", Owner: self(), MaxBytes: 1 << 20, MaxMembers: 1000})
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}
