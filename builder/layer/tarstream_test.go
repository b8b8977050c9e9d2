package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
	splittar "github.com/vbatts/tar-split/archive/tar"
	"github.com/vbatts/tar-split/tar/asm"
	splitstorage "github.com/vbatts/tar-split/tar/storage"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"
)

// makeTree fills dir with one of everything; devices and owners as root only.
func makeTree(t testing.TB, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(p), 0o755))
		must(os.WriteFile(p, []byte(content), 0o644))
		return p
	}
	file("a", "one")
	file("a.b", "sorted after a, before a/")
	file("empty", "")
	file("dir/b", strings.Repeat("x", 511))
	file("dir/c", strings.Repeat("x", 512))
	file("dir/d", strings.Repeat("x", 513))
	file("dir.x/e", "sorted after dir")
	file("caf\u00e9/\u96ea", "utf-8")
	file(strings.Repeat("long/", 22)+"name", "prefix") // splits into a ustar prefix
	file(strings.Repeat("n", 255), "255 bytes")
	file(strings.Repeat("deep-directory-name/", 30)+"f", "over 256 bytes")
	exe := file("bin/exe", "#!")
	must(os.Chmod(exe, 0o4755|os.ModeSetuid))
	must(os.Mkdir(filepath.Join(dir, "sticky"), 0o777))
	must(os.Chmod(filepath.Join(dir, "sticky"), 0o777|os.ModeSticky))
	must(os.Link(exe, filepath.Join(dir, "bin/hard")))
	must(os.Symlink("../a", filepath.Join(dir, "bin/link")))
	must(os.Symlink(strings.Repeat("t/", 300), filepath.Join(dir, "long-link")))
	must(os.Link(filepath.Join(dir, "long-link"), filepath.Join(dir, "long-link2")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o622))
	old := file("old", "before 1970")
	must(os.Chtimes(old, time.Unix(-1000, 5), time.Unix(-1000, 5)))
	big := make([]byte, 3<<20+17)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(big)
	file("large", string(big))
	sparse := file("sparse", "")
	must(os.Truncate(sparse, 2<<20))
	x := file("xattr", "with attributes")
	_ = unix.Setxattr(x, "user.one", []byte("1\x00\n2"), 0)
	_ = unix.Setxattr(x, "user.empty", nil, 0)
	_ = unix.Setxattr(filepath.Join(dir, "dir"), "user.dir", []byte(strings.Repeat("v", 1000)), 0)
	if os.Geteuid() == 0 {
		_ = unix.Setxattr(exe, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		_ = unix.Setxattr(x, "trusted.overlay.origin", []byte("not exported"), 0)
		_ = os.Chown(filepath.Join(dir, "dir/b"), 1000, 2000)
		if unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil {
			must(unix.Mknod(filepath.Join(dir, "loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300))))
			must(os.Lchown(filepath.Join(dir, "loop"), 3000000, 6))
		}
	}
	for i := range 300 {
		file("many/"+string(rune('a'+i%26))+strings.Repeat("z", i/26), strings.Repeat("m", i*7))
	}
}

func openTree(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// streamOf reads the tree and checks what is said of the stream against it.
func streamOf(t testing.TB, s *tarStream) []byte {
	t.Helper()
	var out bytes.Buffer
	s.out = &out
	sum, err := s.digest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer sum.Close()
	if want := digest.FromBytes(out.Bytes()); sum.Digest != want || sum.Size != int64(out.Len()) {
		t.Errorf("digest %s of %d bytes, want %s of %d", sum.Digest, sum.Size, want, out.Len())
	}
	if _, err := sum.TarSplit.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	again := asm.NewOutputTarStream(getter{s.root}, splitstorage.NewJSONUnpacker(sum.TarSplit))
	replay, err := io.ReadAll(again)
	if err != nil {
		t.Errorf("replaying the tar-split record: %v", err)
	}
	if !bytes.Equal(replay, out.Bytes()) {
		t.Error("the tar-split record does not replay the stream")
	}
	if _, err := sum.TarSplit.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var members []string
	err = asm.IterateHeaders(splitstorage.NewJSONUnpacker(sum.TarSplit), func(h *splittar.Header) error {
		members = append(members, h.Name)
		return nil
	})
	if err != nil || !slices.Equal(members, tarNames(t, out.Bytes())) {
		t.Errorf("headers of the tar-split record: %d, %v", len(members), err)
	}
	return out.Bytes()
}

type getter struct{ root *os.File }

func (g getter) Get(name string) (io.ReadCloser, error) { return os.Open(in(g.root, name)) }

func tarNames(t testing.TB, stream []byte) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// libraryStream is how containers/storage exports the directory.
func libraryStream(t testing.TB, dir string, lowers ...string) []byte {
	t.Helper()
	r, err := archive.TarWithOptions(dir, &archive.TarOptions{
		Compression: archive.Uncompressed, WhiteoutFormat: archive.OverlayWhiteoutFormat, WhiteoutData: lowers,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStreamIsTheLibrarys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir)
	got := streamOf(t, &tarStream{root: openTree(t, dir)})
	want := libraryStream(t, dir)
	if !bytes.Equal(got, want) {
		a, b := tarNames(t, got), tarNames(t, want)
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("member %d is %q, want %q", i, a[i], b[i])
			}
		}
		t.Errorf("streams differ; %d members, want %d", len(a), len(b))
	}
}

// The library's own export loses what lies in a directory of such a name.
func TestStreamNamesThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "raw\xff\xfe"), 0o755); err != nil {
		t.Skip("the file system refuses the name: ", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "raw\xff\xfe/\x01\n\x1b[31m"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := tarNames(t, streamOf(t, &tarStream{root: openTree(t, dir)}))
	if want := []string{"raw\xff\xfe/", "raw\xff\xfe/\x01\n\x1b[31m"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
}

func TestStreamOfNothing(t *testing.T) {
	t.Parallel()
	got := streamOf(t, &tarStream{root: openTree(t, t.TempDir())})
	if !bytes.Equal(got, make([]byte, 1024)) {
		t.Errorf("%d bytes, want the 1024 zero bytes of an empty archive", len(got))
	}
}

func TestStreamWhiteouts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("whiteouts need root or a user namespace")
	}
	userXattr := os.Getenv("STRATA_TEST_USERNS") != ""
	own := "trusted.overlay."
	if userXattr {
		own = "user.overlay."
	}
	lower, dir := t.TempDir(), t.TempDir()
	for _, d := range []string{"opq", "kept", "under"} {
		if err := os.MkdirAll(filepath.Join(lower, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"gone", "under/gone"} {
		if err := os.WriteFile(filepath.Join(lower, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"opq", "fresh", "under"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"opq", "fresh"} {
		if err := unix.Setxattr(filepath.Join(dir, d), own+"opaque", []byte("y"), 0); err != nil {
			t.Skip("no trusted attributes here: ", err)
		}
	}
	whiteout := filepath.Join(dir, "gone")
	if err := unix.Mknod(whiteout, unix.S_IFCHR, 0); err != nil {
		t.Skip("no whiteouts here: ", err)
	}
	for _, n := range []string{"under/gone", "under/never", "never", "fresh/never", "opq/hidden"} {
		if err := os.Link(whiteout, filepath.Join(dir, n)); err != nil { // the kernel makes them one inode too
			t.Fatal(err)
		}
	}
	// The other form of a whiteout (Linux 6.7): an empty file with a mark.
	marked := filepath.Join(dir, "under/marked")
	if err := os.WriteFile(marked, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(marked, own+"whiteout", nil, 0); err != nil {
		t.Fatal(err)
	}
	got := streamOf(t, &tarStream{root: openTree(t, dir), userXattr: userXattr, lower: func() (*os.File, error) { return os.Open(lower) }})
	want := []string{"fresh/", ".wh.gone", "opq/", "opq/.wh..wh..opq", "under/", "under/.wh.gone", "under/.wh.marked"}
	if names := tarNames(t, got); !slices.Equal(names, want) {
		t.Errorf("members %q, want %q", names, want)
	}
	for r := tar.NewReader(bytes.NewReader(got)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		if strings.Contains(h.Name, ".wh.") && (h.Typeflag != tar.TypeReg || h.Size != 0 || h.Linkname != "") {
			t.Errorf("deletion %+v", h)
		}
	}
	for _, n := range []string{"never", "under/never", "fresh/never", "opq/hidden"} {
		if _, err := os.Lstat(filepath.Join(dir, n)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still in the upper: %v", n, err)
		}
	}
}

func TestStreamRefusesReservedNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, n := range []string{"a/.wh.b", ".wh..wh..opq", "ok"} {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := (&tarStream{root: openTree(t, dir)}).digest(context.Background())
	if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), `"/a/.wh.b"`) || !strings.Contains(err.Error(), `"/.wh..wh..opq"`) {
		t.Errorf("error %v", err)
	}
}

func TestStreamDropsSockets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "sock"), unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1000000000, 0)
	if err := os.Chtimes(dir, when, when); err != nil {
		t.Fatal(err)
	}
	if names := tarNames(t, streamOf(t, &tarStream{root: openTree(t, dir)})); len(names) != 0 {
		t.Errorf("members %q", names)
	}
	if _, err := os.Lstat(filepath.Join(dir, "sock")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is still there")
	}
	if fi, err := os.Stat(dir); err != nil || !fi.ModTime().Equal(when) {
		t.Errorf("the directory's time changed: %v %v", fi.ModTime(), err)
	}
}

func TestStreamTimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir)
	clamp := time.Unix(0, 0)
	for name, o := range map[string]FreezeOptions{"timestamp": {Timestamp: &clamp}, "clamp": {Clamp: &clamp}} {
		if err := settleTimes(openTree(t, dir), &o); err != nil {
			t.Fatal(err)
		}
		got := streamOf(t, &tarStream{root: openTree(t, dir), timestamp: o.Timestamp, clamp: o.Clamp})
		for r := tar.NewReader(bytes.NewReader(got)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			if h.ModTime.Unix() > 0 || o.Timestamp != nil && h.ModTime.Unix() != 0 {
				t.Errorf("%s: %s has the time %v", name, h.Name, h.ModTime)
			}
			fi, err := os.Lstat(filepath.Join(dir, h.Name))
			if err != nil || fi.ModTime().Unix() != h.ModTime.Unix() {
				t.Errorf("%s: %s on disk has another time: %v %v", name, h.Name, fi.ModTime(), err)
			}
		}
	}
}

func TestStreamNoticesChanges(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1000, 5 << 20} {
		dir := t.TempDir()
		p := filepath.Join(dir, "f")
		if err := os.WriteFile(p, make([]byte, 100), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, said := range []int64{size, 50} {
			table := dirTable{}
			s := &tarStream{}
			fd, _ := unix.Dup(int(d.Fd()))
			b := &batch{entries: []entry{{name: "f", base: "f", dir: table.add(fd), typ: tar.TypeReg, open: true, size: said}}, done: make(chan struct{})}
			if said > batchBytes {
				go s.readLarge(context.Background(), b)
				<-b.done
				for c := range b.chunks {
					b.free <- c[:cap(c)]
				}
				err = b.err
			} else {
				err = s.readEntry(b, 0)
			}
			table.closeAll()
			if err == nil || !strings.Contains(err.Error(), "changed") {
				t.Errorf("a file of 100 bytes that was said to have %d: %v", said, err)
			}
		}
		d.Close()
	}
}

func TestStreamEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeTree(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	s := &tarStream{root: openTree(t, dir), out: writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })}
	if _, err := s.digest(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	full := errors.New("no space")
	s = &tarStream{root: openTree(t, dir), out: writerFunc(func([]byte) (int, error) { return 0, full })}
	if _, err := s.digest(context.Background()); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestDeepTree(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	at, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 1000 // 8000 bytes of path, twice PATH_MAX
	for range depth {
		if err := unix.Mkdirat(at, "deepdir", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "deepdir", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	unix.Close(at)
	s := &tarStream{root: openTree(t, top)}
	sum, err := s.digest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer sum.Close()
	if sum.Members != depth {
		t.Errorf("%d members, want %d", sum.Members, depth)
	}
}
