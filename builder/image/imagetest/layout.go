package imagetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
)

// Layout writes the images as an OCI layout in dir. The first name of each is
// its reference; several specs of one name become an index of that name.
func Layout(t testing.TB, dir string, specs ...Spec) {
	t.Helper()
	write := func(data []byte) digest.Digest {
		d := digest.FromBytes(data)
		file(t, filepath.Join(dir, "blobs", "sha256", d.Encoded()), data)
		return d
	}
	var order []string
	byName := map[string][]v1.Descriptor{}
	for _, s := range specs {
		b := s.Build(t)
		write(b.Config)
		write(b.Manifest)
		for _, blob := range b.Blobs {
			write(blob)
		}
		img, _, err := image.ParseConfig(b.Config)
		if err != nil {
			t.Fatal(err)
		}
		name := ""
		if len(s.Names) > 0 {
			name = s.Names[0]
		}
		if _, ok := byName[name]; !ok {
			order = append(order, name)
		}
		byName[name] = append(byName[name], v1.Descriptor{
			MediaType: b.MediaType, Digest: b.ManifestDigest, Size: int64(len(b.Manifest)), Platform: &img.Platform,
		})
	}
	var top []v1.Descriptor
	for _, name := range order {
		d := byName[name][0]
		if len(byName[name]) > 1 {
			data := Index(t, byName[name])
			d = v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: write(data), Size: int64(len(data))}
		}
		if name != "" {
			d.Annotations = map[string]string{v1.AnnotationRefName: name}
		}
		top = append(top, d)
	}
	file(t, filepath.Join(dir, v1.ImageIndexFile), Index(t, top))
	file(t, filepath.Join(dir, v1.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// Index is an OCI image index of the manifests.
func Index(t testing.TB, manifests []v1.Descriptor) []byte {
	t.Helper()
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: manifests}
	index.SchemaVersion = 2
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func file(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
