package layer

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage/pkg/archive"
)

// digestOf reads a stream to its end.
func digestOf(r io.Reader) (digest.Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return digest.NewDigest(digest.SHA256, h), n, err
}

// The stream of a layer is the one that its diff ID was made of, whoever wrote
// the record, and however it is read.
func TestStreamOfLayer(t *testing.T) {
	f := newFixture(t, "overlay")
	if !f.zeroCopy() {
		t.Skip("layers are not directories here")
	}
	built := f.wait(f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
		makeTree(t, in(root, "."))
		write(t, root, "large", strings.Repeat("content ", 100_000))
	}))
	// The same, unpacked by the library, whose record has other forms of names.
	uncompressed := archive.Uncompressed
	tar, err := archive.TarWithOptions(filepath.Join(f.st.Raw().GraphRoot(), "overlay", string(built.ID), "diff"), &archive.TarOptions{Compression: uncompressed})
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := f.st.Raw().PutLayer("", "", nil, "", false, nil, tar)
	tar.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Info{built, {ID: define.LayerID(l.ID), DiffID: l.UncompressedDigest, Size: l.UncompressedSize}} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "bytes": iotest.OneByteReader,
		} {
			r, err := Stream(f.st, want.ID)
			if err != nil {
				t.Fatal(err)
			}
			d, n, err := digestOf(wrap(r))
			if err != nil || d != want.DiffID || n != want.Size {
				t.Errorf("%s of %s: %s of %d bytes, want %s of %d: %v", name, want.ID, d, n, want.DiffID, want.Size, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if _, err := r.Read(make([]byte, 1)); err == nil {
				t.Error("a closed stream was read")
			}
		}
	}
	if _, err := Stream(f.st, "none"); err == nil {
		t.Error("a layer that is not there has a stream")
	}
}

// What names of a record may not reach, and what is wrong in it, is an error.
func TestStreamOfHostileRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "diff")
	for name, content := range map[string]string{"diff/file": "inside", "outside": "secret", "diff/sub/x": "below"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"up": "..", "abs": filepath.Join(dir, "outside"), "in": "sub"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		line, want, err string
	}{
		{line: `{"type":1,"name":"file","size":6,"payload":"","position":0}`, want: "inside"},
		{line: `{"type":1,"name":"./in/x","size":5,"payload":"","position":0}`, want: "below"},
		{line: `{"type":1,"name":"/file","size":6,"payload":"","position":0}`, want: "inside"},
		{line: `{"type":1,"name":"fi\u006ce","size":6}`, want: "inside"},
		{line: `{"type":1,"name_raw":"ZmlsZQ==","size":6}`, want: "inside"},
		{line: `{"type":2,"payload":"aGVhZA==","position":0}`, want: "head"},
		{line: `{"type":1,"name":"file","size":3}`, want: "ins"},
		{line: `{"type":1,"name":"file","size":7}`, want: "inside", err: "shorter"},
		{line: `{"type":1,"name":"../outside","size":6}`, err: "no such file"},
		{line: `{"type":1,"name":"up/outside","size":6}`, err: "no such file"},
		{line: `{"type":1,"name":"abs","size":6}`, err: "symbolic links"},
		{line: `{"type":1,"name":"sub","size":6}`, err: "directory"},
		{line: `{"type":1,"name":"file","size":-1}`, err: "size -1"},
		{line: `{"type":3}`, err: "type 3"},
		{line: `{"type":2,"payload":"?","position":0}`, err: "illegal base64"},
		{line: `{`, err: "JSON"},
	} {
		at, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		s := &restream{id: "l", root: at, record: io.NopCloser(nil), file: -1}
		s.lines = bufio.NewReader(strings.NewReader(tt.line + "\n"))
		got, err := io.ReadAll(s)
		if string(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v", tt.line, got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzRestreamLine(f *testing.F) {
	f.Add([]byte(`{"type":1,"name":"file","size":6,"payload":"","position":0}`))
	f.Add([]byte(`{"type":2,"payload":"aGVhZA==","position":0}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var s restream
		e, err := s.parse(line)
		if err == nil && e.Type == 1 && strings.ContainsAny(e.Name, "\\\"") && !strings.Contains(string(line), "\\") {
			t.Errorf("%q: %q", line, e.Name)
		}
	})
}

// A layer whose names lie elsewhere, or that has no record, is the library's.
func TestStreamUnsupported(t *testing.T) {
	f := newFixture(t, "vfs")
	l := f.wait(f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) { write(t, root, "a", "a") }))
	if _, err := Stream(f.st, l.ID); !errors.Is(err, define.ErrUnsupported) {
		t.Error(err)
	}
}

func BenchmarkStreamOf10000Files(b *testing.B) {
	f := newFixture(b, "overlay")
	l := f.wait(f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) { manyFiles(b, in(root, "."), 10000) }))
	buf := make([]byte, 1<<20)
	start := usage()
	for b.Loop() {
		r, err := Stream(f.st, l.ID)
		if err != nil {
			b.Fatal(err)
		}
		var n int64
		for err == nil {
			var k int
			k, err = r.Read(buf)
			n += int64(k)
		}
		if !errors.Is(err, io.EOF) || n != l.Size {
			b.Fatal(fmt.Errorf("%d bytes: %w", n, err))
		}
		b.SetBytes(n)
		r.Close()
	}
	report(b, start)
}
