package image_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

func TestExtras(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "vfs"})
	if err != nil {
		t.Skipf("no store can be made here: %v", err)
	}
	t.Cleanup(func() { st.Close() })
	rec, err := st.Raw().CreateImage("", nil, "", "", &storage.ImageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id := define.ImageID(rec.ID)
	if e, err := image.LoadExtras(st, id); err != nil || !e.Empty() {
		t.Fatalf("without any: %+v, %v", e, err)
	}
	e := &image.Extras{}
	blob := digest.FromString("content")
	sum := e.Add([]byte(`{"schemaVersion":2}`), map[digest.Digest]image.Blob{blob: {Data: []byte("content"), Size: 7}})
	if err := image.SaveExtras(st, id, e); err != nil {
		t.Fatal(err)
	}
	got, err := image.LoadExtras(st, id)
	if err != nil || string(got.Manifests[sum]) != `{"schemaVersion":2}` || string(got.Blobs[blob].Data) != "content" {
		t.Errorf("%+v, %v", got, err)
	}
	e.Manifests[sum] = []byte("something else")
	if err := image.SaveExtras(st, id, e); err != nil {
		t.Fatal(err)
	}
	if _, err := image.LoadExtras(st, id); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a manifest of another digest: %v", err)
	}
	if err := image.SaveExtras(st, id, &image.Extras{Manifests: map[digest.Digest][]byte{"x": make([]byte, image.MaxDocument)}}); err == nil {
		t.Error("too large ones are written")
	}
}
