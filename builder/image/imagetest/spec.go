package imagetest

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
)

// Files is a layer: contents by path. A path that ends with a slash is a
// directory; one that begins with ".wh." in its last part is a whiteout.
type Files map[string]string

// Spec describes an image; the zero value is an empty one of this host.
type Spec struct {
	Names       []string
	Platform    define.Platform
	Format      define.Format
	Layers      []Files
	Annotations map[string]string
	// Configure changes the image before it is encoded.
	Configure func(*image.Image)
}

// Built is an image as bytes.
type Built struct {
	*image.Encoded
	Layers []image.Layer
	Blobs  [][]byte // of Layers
}

// Build encodes the image. Layers are uncompressed.
func (s Spec) Build(t testing.TB) Built {
	t.Helper()
	img := image.New(s.Platform)
	at := time.Unix(1700000000, 0).UTC()
	img.Created = &at
	img.Annotations = s.Annotations
	var b Built
	for _, files := range s.Layers {
		blob := Tar(t, files)
		d := digest.FromBytes(blob)
		b.Layers = append(b.Layers, image.Layer{DiffID: d, Digest: d, Size: int64(len(blob))})
		b.Blobs = append(b.Blobs, blob)
		img.History = append(img.History, image.History{Created: &at, CreatedBy: "imagetest"})
	}
	if s.Configure != nil {
		s.Configure(img)
	}
	var err error
	if b.Encoded, err = img.Encode(s.Format, b.Layers); err != nil {
		t.Fatal(err)
	}
	return b
}

// Tar writes the files as a layer: sorted, owned by root, of one time.
func Tar(t testing.TB, files Files) []byte {
	t.Helper()
	var paths []string
	for p := range files {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range paths {
		h := &tar.Header{Name: p, Mode: 0o755, ModTime: time.Unix(1700000000, 0), Typeflag: tar.TypeReg, Size: int64(len(files[p])), Format: tar.FormatPAX}
		if strings.HasSuffix(p, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(files[p])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
