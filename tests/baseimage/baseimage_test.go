package baseimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// get reads and verifies a blob of a layout.
func get(t *testing.T, dir string, d v1.Descriptor) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(b) != d.Digest || int64(len(b)) != d.Size {
		t.Fatalf("blob %s does not match its descriptor", d.Digest)
	}
	return b
}

func parse[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLayout(t *testing.T) {
	t.Parallel()
	dir := Layout(t)
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	index := parse[v1.Index](t, b)
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations[v1.AnnotationRefName] != Ref {
		t.Fatalf("%+v", index)
	}
	manifest := parse[v1.Manifest](t, get(t, dir, index.Manifests[0]))
	config := parse[v1.Image](t, get(t, dir, manifest.Config))
	gz, err := gzip.NewReader(bytes.NewReader(get(t, dir, manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	if config.RootFS.DiffIDs[0] != digest.FromBytes(stream) {
		t.Error("the diff ID is not the stream's")
	}
	entries := map[string]*tar.Header{}
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if entries[h.Name] != nil {
			t.Errorf("%s is there twice", h.Name)
		}
		entries[h.Name] = h
	}
	for name, want := range map[string]string{
		"bin/busybox": "0 755 0", "bin/sh": "2 777 0", "tmp/": "5 1777 0", "root/": "5 700 0", "etc/passwd": "0 644 0", "etc/group": "0 644 0", "home/user/": "5 755 1000",
	} {
		h := entries[name]
		if h == nil {
			t.Errorf("no %s", name)
			continue
		}
		if got := fmt.Sprintf("%c %o %d", h.Typeflag, h.Mode, h.Uid); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(entries) < 100 {
		t.Errorf("only %d entries", len(entries))
	}
}

func TestEqualEachTime(t *testing.T) {
	t.Parallel()
	busybox, err := Busybox(context.Background(), t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	first, err := Write(t.TempDir(), "a", busybox)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Write(t.TempDir(), "b", busybox); err != nil || second != first {
		t.Errorf("%s, then %s, %v", first, second, err)
	}
}

func TestSkopeoReads(t *testing.T) {
	t.Parallel()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := Layout(t)
	file := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Archive(f, dir), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"oci:" + dir + ":" + Ref, "oci-archive:" + file} {
		dest := t.TempDir()
		out, err := exec.Command(skopeo, "--insecure-policy", "--tmpdir", t.TempDir(), "copy", name, "dir:"+dest).CombinedOutput()
		if err != nil {
			t.Errorf("skopeo copy %s: %v\n%s", name, err, out)
		}
	}
}

// A package as dpkg makes it, with one file in it, in each compression that
// needs no program.
func TestDeb(t *testing.T) {
	t.Parallel()
	var data bytes.Buffer
	gz := gzip.NewWriter(&data)
	w := tar.NewWriter(gz)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./bin/busybox", Size: 5, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	member := func(name string, b []byte) []byte {
		out := fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(b))
		out = append(out, b...)
		if len(b)%2 == 1 {
			out = append(out, '\n')
		}
		return out
	}
	deb := append([]byte("!<arch>\n"), member("debian-binary", []byte("2.0"))...)
	deb = append(deb, member("control.tar.xz", []byte("x"))...)
	whole := append(append([]byte(nil), deb...), member("data.tar.gz/", data.Bytes())...)
	r, err := debFile(bytes.NewReader(whole), "usr/bin/busybox", "bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	for _, bad := range [][]byte{nil, []byte("!<arch>\n"), deb, whole[:100], append(deb, member("data.tar.lzma", nil)...)} {
		if _, err := debFile(bytes.NewReader(bad), "bin/busybox"); err == nil {
			t.Errorf("%d bytes were accepted", len(bad))
		}
	}
}

func TestCheckStatic(t *testing.T) {
	t.Parallel()
	if err := checkStatic(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := checkStatic("/bin/sh"); err == nil {
		t.Skip("this host's shell is statically linked")
	}
}

// Needs a Debian archive within reach: on request only.
func TestDownload(t *testing.T) {
	t.Parallel()
	if os.Getenv("STRATA_TEST_DOWNLOAD") == "" {
		t.Skip("set STRATA_TEST_DOWNLOAD=1 to fetch a package")
	}
	path, err := download(context.Background(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.TempDir(), Ref, path); err != nil {
		t.Error(err)
	}
}
