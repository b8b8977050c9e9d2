package manifest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

func open(t *testing.T) *store.Store {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "vfs"})
	if err != nil {
		t.Skipf("no store can be made here: %v", err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// record puts an image without layers into the store.
func record(t *testing.T, st *store.Store, arch, name string) define.ImageID {
	t.Helper()
	img := image.New(define.Platform{OS: "linux", Architecture: arch})
	e, err := img.Encode(define.FormatOCI, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Record(st, e, "", []string{name}); err != nil {
		t.Fatal(err)
	}
	return e.ID
}

func TestListKeepsItsID(t *testing.T) {
	t.Parallel()
	st := open(t)
	amd, arm := record(t, st, "amd64", "localhost/amd:1"), record(t, st, "arm64", "localhost/arm:1")
	l, err := manifest.Create(st, "localhost/l:latest")
	if err != nil {
		t.Fatal(err)
	}
	var first digest.Digest
	err = manifest.Update(t.Context(), st, l.ID, func(l *manifest.List) error {
		for _, id := range []define.ImageID{amd, arm, amd} {
			e, err := l.Add(id)
			if err != nil {
				return err
			}
			first = e.Digest
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := manifest.Open(st, l.ID)
	if err != nil || len(again.Entries()) != 2 || again.Entries()[1].Platform.Architecture != "arm64" || again.Label() != "localhost/l:latest" {
		t.Fatalf("%+v %v", again, err)
	}
	// As podman and buildah keep it.
	rec, err := st.Raw().Image(string(l.ID))
	if err != nil || rec.TopLayer != "" || rec.BigDataDigests[storage.ImageDigestBigDataKey] != digestOf(t, again) {
		t.Errorf("the record: %+v %v", rec, err)
	}
	where, err := st.Raw().ImageBigData(string(l.ID), image.InstancesKey)
	var instances map[digest.Digest]string
	if err != nil || json.Unmarshal(where, &instances) != nil || instances[""] != string(l.ID) ||
		!strings.HasPrefix(instances[first], "containers-storage:[vfs@") || !strings.HasSuffix(instances[first], "]@"+string(amd)) {
		t.Errorf("the places: %s %v", where, err)
	}
	err = manifest.Update(t.Context(), st, l.ID, func(l *manifest.List) error { return l.Remove(first) })
	if err != nil {
		t.Fatal(err)
	}
	if again, err := manifest.Open(st, l.ID); err != nil || len(again.Entries()) != 1 {
		t.Errorf("after Remove: %+v %v", again, err)
	}
}

func digestOf(t *testing.T, l *manifest.List) digest.Digest {
	t.Helper()
	data, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return digest.FromBytes(data)
}

func TestListRefuses(t *testing.T) {
	t.Parallel()
	st := open(t)
	one := record(t, st, "amd64", "localhost/one:1")
	l, err := manifest.Create(st, "localhost/l:1")
	if err != nil {
		t.Fatal(err)
	}
	noSuch := digest.FromString("no such image")
	for name, tc := range map[string]struct {
		do   func() error
		kind error
	}{
		"a name that a list has":   {func() error { _, err := manifest.Create(st, "localhost/l:1"); return err }, define.ErrInUse},
		"a name that an image has": {func() error { _, err := manifest.Create(st, "localhost/one:1"); return err }, define.ErrInUse},
		"an image as a list":       {func() error { _, err := manifest.Open(st, one); return err }, define.ErrInvalid},
		"a list in a list":         {func() error { _, err := l.Add(l.ID); return err }, define.ErrInvalid},
		"an image that is not":     {func() error { _, err := l.Add(define.ImageID(noSuch.Encoded())); return err }, define.ErrNotFound},
		"an entry that is not":     {func() error { return l.Remove(noSuch) }, define.ErrNotFound},
		"a list that is not": {func() error {
			return manifest.Update(t.Context(), st, define.ImageID(noSuch.Encoded()), func(*manifest.List) error { return nil })
		}, define.ErrNotFound},
		"an annotation too large": {func() error {
			return manifest.Update(t.Context(), st, l.ID, func(l *manifest.List) error {
				l.Annotate(map[string]string{"a": strings.Repeat("x", image.MaxDocument)})
				return nil
			})
		}, define.ErrInvalid},
		"an image under the name": {func() error {
			_, err := manifest.UpdateNamed(t.Context(), st, "localhost/one:1", func(*manifest.List) error { return nil })
			return err
		}, define.ErrInvalid},
	} {
		if err := tc.do(); !errors.Is(err, tc.kind) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again, err := manifest.Open(st, l.ID); err != nil || len(again.Entries()) != 0 {
		t.Errorf("a refused change was written: %+v %v", again, err)
	}
}

// TestListOfOthers: what other tools wrote is kept, and what is hostile is an
// error.
func TestListOfOthers(t *testing.T) {
	t.Parallel()
	st := open(t)
	put := func(name, list, where string) define.ImageID {
		t.Helper()
		rec, err := st.Raw().CreateImage("", []string{name}, "", "", &storage.ImageOptions{BigData: []storage.ImageBigDataOption{
			{Key: storage.ImageDigestBigDataKey, Data: []byte(list), Digest: digest.FromString(list)},
			{Key: image.InstancesKey, Data: []byte(where), Digest: digest.FromString(where)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return define.ImageID(rec.ID)
	}
	sum := digest.FromString("x")
	good := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":7,"platform":{"architecture":"arm","os":"linux","variant":"v7","features":["sse"]}}]}`,
		image.MediaTypeDockerManifestList, image.MediaTypeDockerManifest, sum)
	for i, where := range []string{`{"":"x"}`, "", "null", "[]", `{"../../x":1}`} {
		l, err := manifest.Open(st, put(fmt.Sprintf("localhost/good:%d", i), good, where))
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if data, err := l.Bytes(); err != nil || string(data) != good {
			t.Errorf("%s: written as %s %v, want %s", where, data, err, good)
		}
		e, err := l.Entry(sum)
		if err != nil {
			t.Fatal(err)
		}
		e.Annotations = map[string]string{"a": "b"}
		if _, err := l.Bytes(); err != nil || l.MediaType() != v1.MediaTypeImageIndex {
			t.Errorf("an annotation needs OCI's form, not %s: %v", l.MediaType(), err)
		}
	}
	empty := `{"schemaVersion":2,"mediaType":"` + image.MediaTypeDockerManifestList + `","manifests":null}`
	if l, err := manifest.Open(st, put("localhost/empty:1", empty, "{}")); err != nil || len(l.Entries()) != 0 {
		t.Errorf("buildah's empty list: %v", err)
	}
	for i, list := range []string{
		"", "{", `{"schemaVersion":1,"manifests":[]}`, strings.Replace(good, sum.String(), "sha256:../../etc", 1),
		strings.Replace(good, `"manifests"`, `"Manifests":[],"manifests"`, 1), strings.Replace(good, `"size":7`, `"size":"7"`, 1),
	} {
		if _, err := manifest.Open(st, put(fmt.Sprintf("localhost/bad:%d", i), list, "{}")); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", list, err)
		}
	}
}

// TestUpdatesAtOnce: no change is lost.
func TestUpdatesAtOnce(t *testing.T) {
	t.Parallel()
	st := open(t)
	archs := []string{"amd64", "arm64", "s390x", "ppc64le", "riscv64", "386"}
	var ids []define.ImageID
	for _, a := range archs {
		ids = append(ids, record(t, st, a, "localhost/"+a+":1"))
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			_, err := manifest.UpdateNamed(t.Context(), st, "localhost/l:1", func(l *manifest.List) error {
				_, err := l.Add(id)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rec, err := st.Raw().Image("localhost/l:1")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := manifest.Open(st, define.ImageID(rec.ID)); err != nil || len(l.Entries()) != len(archs) {
		t.Errorf("%+v %v", l, err)
	}
}
