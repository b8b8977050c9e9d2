package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// killed is a store whose process is killed when it has made an image's
// record, and not yet written what belongs to it.
type killed struct{ recorder }

func (k killed) CreateImage(id string, names []string, layer, metadata string, _ *storage.ImageOptions) (*storage.Image, error) {
	return k.recorder.CreateImage(id, names, layer, metadata, nil)
}

// TestRecordKilled: an image whose recording was interrupted can be read, by
// this program and by those that refuse a store with one that cannot.
func TestRecordKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "vfs"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	e, err := New(define.HostPlatform()).Encode(define.FormatOCI, nil)
	if err != nil {
		t.Fatal(err)
	}
	items := e.items()
	a := ahead(st).(aheadStore)
	a.recorder = killed{a.recorder}
	id := string(e.ID)
	if _, err := a.CreateImage(id, nil, "", "{}", &storage.ImageOptions{Digest: e.ManifestDigest, BigData: items}); err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if b, err := st.Raw().ImageBigData(id, item.Key); err != nil || digest.FromBytes(b) != item.Digest {
			t.Errorf("%s: %q, %v", item.Key, b, err)
		}
	}
	if s, err := Load(st, e.ID); err != nil || s.ID != e.ID {
		t.Errorf("loading it: %v", err)
	}
	// The next recording completes it.
	if err := Record(st, e, "", []string{"localhost/x:latest"}); err != nil {
		t.Fatal(err)
	}
	if rec, err := st.Raw().Image("localhost/x:latest"); err != nil || len(rec.BigDataNames) != len(items) {
		t.Errorf("recorded again: %+v, %v", rec, err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "root", "vfs-images", id))
	if err != nil || len(files) != len(items) {
		t.Errorf("the image's files: %v, %v", files, err)
	}
	// What was not recorded leaves no files.
	if _, err := ahead(st).CreateImage("b"+id[1:], nil, "nosuchlayer", "{}", &storage.ImageOptions{BigData: items}); err == nil {
		t.Error("an image on a layer that is not there")
	}
	if _, err := os.Lstat(filepath.Join(dir, "root", "vfs-images", "b"+id[1:])); err == nil {
		t.Error("an image that failed has left its files")
	}
}
