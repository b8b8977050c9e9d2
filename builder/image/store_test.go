package image_test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/define"
)

func TestMain(m *testing.M) { imagetest.Main(m) }

func TestRecordAndLoad(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	for _, f := range []define.Format{define.FormatOCI, define.FormatDocker} {
		spec := imagetest.Spec{
			Names: []string{"localhost/" + string(f) + ":latest"}, Format: f,
			Layers: []imagetest.Files{{"a": "1"}, {"b": "2"}},
			Configure: func(i *image.Image) {
				i.SetEnv("A", "1")
				i.SetEnv("FORMAT", string(f))
				i.Config.Healthcheck = &image.Healthcheck{Test: []string{"CMD", "true"}}
				i.Config.Shell = []string{"/bin/ash", "-c"}
			},
		}
		b := spec.Build(t)
		got := imagetest.Put(t, st, spec)
		if got.ID != b.ID || got.MediaType != b.MediaType || got.Digest != b.ManifestDigest ||
			string(got.Manifest) != string(b.Manifest) || string(got.RawConfig) != string(b.Config) {
			t.Errorf("%s: loaded %+v", f, got)
		}
		if !reflect.DeepEqual(got.Names, spec.Names) || len(got.DiffIDs) != 2 || got.TopLayer == "" || got.Created.Unix() != 1700000000 {
			t.Errorf("%s: loaded %v, %v, %q, %v", f, got.Names, got.DiffIDs, got.TopLayer, got.Created)
		}
		if v, _ := got.Env("A"); v != "1" || got.Config.Healthcheck == nil || got.Config.Shell[0] != "/bin/ash" || len(got.History) != 2 {
			t.Errorf("%s: config %+v", f, got.Config)
		}
	}
}

func TestRecordMovesNames(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	name := []string{"localhost/x:latest"}
	old := imagetest.Put(t, st, imagetest.Spec{Names: name, Layers: []imagetest.Files{{"a": "1"}}})
	neu := imagetest.Put(t, st, imagetest.Spec{Names: name, Layers: []imagetest.Files{{"a": "2"}}})
	if old, err := image.Load(st, old.ID); err != nil || len(old.Names) != 0 {
		t.Errorf("the old image kept %v (%v)", old.Names, err)
	}
	again := imagetest.Put(t, st, imagetest.Spec{Names: []string{"localhost/y:latest"}, Layers: []imagetest.Files{{"a": "2"}}})
	if again.ID != neu.ID || !slices.Contains(again.Names, name[0]) || !slices.Contains(again.Names, "localhost/y:latest") {
		t.Errorf("recorded again: %v has %v", again.ID, again.Names)
	}
	// The same config in another format is the same image with another manifest.
	b := imagetest.Spec{Format: define.FormatDocker, Layers: []imagetest.Files{{"a": "2"}}}.Build(t)
	if err := image.Record(st, b.Encoded, neu.TopLayer, nil); err != nil {
		t.Fatal(err)
	}
	if s, err := image.Load(st, neu.ID); err != nil || s.Digest != b.ManifestDigest || len(s.Names) != 2 {
		t.Errorf("after the change of format: %v %v", s, err)
	}
}

func TestRecordFailsWhole(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	b := imagetest.Spec{Layers: []imagetest.Files{{"a": "1"}}}.Build(t)
	err := image.Record(st, b.Encoded, define.LayerID(strings.Repeat("a", 64)), []string{"localhost/x:latest"})
	if !errors.Is(err, define.ErrNotFound) {
		t.Errorf("a layer that is not there: %v", err)
	}
	if images, _ := st.Raw().Images(); len(images) != 0 {
		t.Errorf("left behind: %v", images)
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	if _, err := image.Load(st, "abc"); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("an unknown ID: %v", err)
	}
	img := imagetest.Put(t, st, imagetest.Spec{Names: []string{"localhost/x:latest"}})
	if _, err := image.Load(st, img.ID[:10]); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("the start of an ID: %v", err)
	}
	if _, err := st.Raw().CreateImage(strings.Repeat("b", 64), nil, "", "{}", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Load(st, define.ImageID(strings.Repeat("b", 64))); err == nil || !strings.Contains(err.Error(), "manifest is missing") {
		t.Errorf("an image without a manifest: %v", err)
	}
}

// TestSkopeoReads lets another tool of the family read what Record wrote.
func TestSkopeoReads(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	st := imagetest.Store(t)
	for _, f := range []define.Format{define.FormatOCI, define.FormatDocker} {
		name := "localhost/" + string(f) + ":latest"
		img := imagetest.Put(t, st, imagetest.Spec{
			Names: []string{name}, Format: f, Layers: []imagetest.Files{{"a": "1"}},
			Configure: func(i *image.Image) { i.SetEnv("A", "1") },
		})
		spec := "containers-storage:[vfs@" + st.Raw().GraphRoot() + "+" + st.Raw().RunRoot() + "]" + name
		out, err := exec.Command(skopeo, "inspect", spec).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo inspect: %v\n%s", err, out)
		}
		var got struct {
			Digest string
			Layers []string
			Env    []string
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if got.Digest != img.Digest.String() || len(got.Layers) != 1 || !slices.Contains(got.Env, "A=1") {
			t.Errorf("skopeo reads %+v of %s", got, img.Digest)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	st := imagetest.Store(b)
	img := imagetest.Put(b, st, imagetest.Spec{Layers: []imagetest.Files{{"a": "1"}}})
	for b.Loop() {
		if _, err := image.Load(st, img.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	st := imagetest.Store(b)
	n := 0
	for b.Loop() {
		n++
		e := imagetest.Spec{Configure: func(i *image.Image) { i.SetEnv("N", strconv.Itoa(n)) }}.Build(b)
		if err := image.Record(st, e.Encoded, "", []string{"localhost/x:latest"}); err != nil {
			b.Fatal(err)
		}
	}
}
