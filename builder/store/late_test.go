package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
)

// withImages makes a store with some images, through the library.
func withImages(t *testing.T) (st *Store, dir string, asked []string) {
	t.Helper()
	st, dir = newStore(t, "overlay")
	if _, err := st.StateDir(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Raw().CreateLayer("", "", nil, "", false, nil); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{{"localhost/a:latest", "localhost/a:1"}, {"registry.example/b@sha256:" + strings.Repeat("1", 64)}, nil} {
		asked = append(asked, addImage(t, st, names...))
		asked = append(asked, names...)
	}
	return st, dir, asked
}

// addImage records an image with a manifest and a config.
func addImage(t *testing.T, st *Store, names ...string) string {
	t.Helper()
	manifest := []byte(`{"config":"` + strings.Join(names, " ") + `"}`)
	id := digest.FromBytes(manifest).Encoded()
	img, err := st.Raw().CreateImage(id, names, "", "{\"id\":\"quoted\"}", &storage.ImageOptions{
		Digest: digest.FromBytes(manifest),
		BigData: []storage.ImageBigDataOption{
			{Key: storage.ImageDigestBigDataKey, Data: manifest, Digest: digest.FromBytes(manifest)},
			{Key: "sha256:" + id, Data: []byte(id), Digest: digest.FromString(id)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img.ID
}

// late opens the store again and tells whether the library has been asked.
func late(t *testing.T, dir string, options ...string) (*Store, *lateStore) {
	t.Helper()
	st, err := Open(t.Context(), Options{
		Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "overlay", DriverOptions: options,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	l, _ := st.raw.(*lateStore)
	return st, l
}

func TestLateAnswers(t *testing.T) {
	st, dir, asked := withImages(t)
	again, l := late(t, dir)
	if l == nil {
		t.Fatal("a store that was opened just so before was opened at once")
	}
	for _, name := range asked {
		want, err := st.Raw().Image(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.Raw().Image(name)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nthe library: %+v", name, got, err, want)
		}
		for _, key := range want.BigDataNames {
			want, _ := st.Raw().ImageBigData(name, key)
			got, err := again.Raw().ImageBigData(name, key)
			if err != nil || !bytes.Equal(got, want) || len(got) == 0 {
				t.Errorf("%s %s: %q, %v", name, key, got, err)
			}
		}
	}
	for _, name := range []string{"localhost/a:2", "localhost/a", "registry.example/b:1", strings.Repeat("0", 64)} {
		if img, err := again.Raw().Image(name); !errors.Is(err, storage.ErrImageUnknown) {
			t.Errorf("%s: %v, %v", name, img, err)
		}
	}
	if l.opened.Load() {
		t.Error("the library was asked")
	}
	if got := []string{again.Raw().GraphRoot(), again.Raw().RunRoot(), again.Raw().GraphDriverName()}; !slices.Equal(got, []string{st.Raw().GraphRoot(), st.Raw().RunRoot(), "overlay"}) {
		t.Errorf("the store is %q", got)
	}
	if a, b := again.Raw().GraphOptions(), st.Raw().GraphOptions(); !slices.Equal(a, b) {
		t.Errorf("its options are %q, the library's %q", a, b)
	}
	// What only the library knows: the start of an ID.
	if img, err := again.Raw().Image(asked[0][:12]); err != nil || img.ID != asked[0] || !l.opened.Load() {
		t.Errorf("the start of an ID: %v, %v", img, err)
	}
}

func TestLateSeesChanges(t *testing.T) {
	st, dir, asked := withImages(t)
	again, l := late(t, dir)
	const moved, added = "localhost/a:latest", "localhost/new:latest"
	if _, err := again.Raw().Image(moved); err != nil {
		t.Fatal(err)
	}
	id := addImage(t, st, added)
	if err := st.Raw().SetNames(asked[0], nil); err != nil {
		t.Fatal(err)
	}
	if err := st.Raw().AddNames(id, []string{moved}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{moved, added} {
		if img, err := again.Raw().Image(name); err != nil || img.ID != id {
			t.Errorf("%s: %v, %v", name, img, err)
		}
	}
	if img, err := again.Raw().Image("localhost/a:1"); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("a name that was taken away: %v, %v", img, err)
	}
	if _, err := st.Raw().DeleteImage(id, true); err != nil {
		t.Fatal(err)
	}
	if img, err := again.Raw().Image(id); !errors.Is(err, storage.ErrImageUnknown) || l == nil || l.opened.Load() {
		t.Errorf("an image that was removed: %v, %v", img, err)
	}
}

// TestLateOnlyWhenUsual: anything out of the ordinary is the library's, at once.
func TestLateOnlyWhenUsual(t *testing.T) {
	_, dir, _ := withImages(t)
	if _, l := late(t, dir, "overlay.mountopt=nodev"); l != nil {
		t.Error("late with other options")
	}
	images := filepath.Join(dir, "root", "overlay-images", "images.json")
	good, err := os.ReadFile(images)
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{"", "null", `[{"names":[],"id":"1"}]`} {
		if err := os.WriteFile(images, []byte(odd), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, l := late(t, dir); l != nil {
			t.Errorf("late with the list %q", odd)
		}
	}
	if err := os.WriteFile(images, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "root", "strata", openedFile)); err != nil {
		t.Fatal(err)
	}
	if _, l := late(t, dir); l != nil {
		t.Error("late without an earlier opening")
	}
}

// TestLateRefusal: what the library refuses reaches whoever needs it.
func TestLateRefusal(t *testing.T) {
	st, dir, asked := withImages(t)
	again, l := late(t, dir)
	st.Raw().Free() // or the library would take what it has open
	layers := filepath.Join(dir, "root", "overlay-layers")
	if err := errors.Join(os.RemoveAll(layers), os.WriteFile(layers, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Raw().Image(asked[0]); err != nil {
		t.Errorf("an image: %v", err)
	}
	_, err := again.Raw().Layers()
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("the layers: %v", err)
	}
	if l == nil || again.Raw().Exists("x") {
		t.Error("something exists")
	}
	if err := os.Remove(layers); err != nil {
		t.Fatal(err)
	}
}

func TestImageListOdd(t *testing.T) {
	t.Parallel()
	id := func(c string) string { return strings.Repeat(c, 64) }
	for _, c := range []struct {
		list, ask, want string
		sure            bool
	}{
		{`[]`, "localhost/x:1", "", true},
		{`[{"id":"` + id("a") + `","names":["localhost/x:1"]}]`, "localhost/x:1", id("a"), false},
		{`[{"id":"` + id("a") + `","layer":"` + id("b") + `"},{"id":"` + id("b") + `"}]`, id("b"), id("b"), false},
		{`[{"id":"` + id("a") + `","layer":"` + id("b") + `"}]`, id("b"), "", true},
		{`[{"id":"` + id("a") + `","names-history":["localhost/x:1"]}]`, "localhost/x:1", "", true},
		// Two have the name: the library mends that.
		{`[{"id":"` + id("a") + `","names":["localhost/x:1"]},{"id":"` + id("b") + `","names":["localhost/x:1"]}]`, "localhost/x:1", "", false},
		{`[{"id":"` + id("a") + `","names":["localhost/x:1"],"digest":"odd"}]`, "localhost/x:1", "", false},
		{`[{"id":"` + id("a") + `","names":["localhost/x:1"}]`, "localhost/x:1", "", false},
		{`[{"id":"` + id("a") + `","metadata":"{\"id\":\"` + id("c") + `\",\"names\":[\"localhost/x:1\"]}"}]`, "localhost/x:1", "", true},
		{`[{"id":"short","names":["localhost/x:1"]}]`, "localhost/x:1", "", false},
		{`[{"id":"` + id("a") + `"}]`, "abc", "", false},
		{`[{"id":"` + id("a") + `"}]`, `localhost/<x>:1`, "", false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "images.json"), []byte(c.list), 0o600); err != nil {
			t.Fatal(err)
		}
		l := imageList{dir: dir}
		rec, sure := l.find(c.ask)
		l.close()
		got := ""
		if rec != nil {
			got = rec.ID
		}
		if got != c.want || sure != c.sure {
			t.Errorf("%s in %s: %q %v, want %q %v", c.ask, c.list, got, sure, c.want, c.sure)
		}
	}
}

func FuzzImageList(f *testing.F) {
	a := strings.Repeat("a", 64)
	f.Add([]byte(`[{"id":"`+a+`","names":["localhost/x:1"]}]`), "localhost/x:1")
	f.Add([]byte(`[{"id":"`+a+`","layer":"`+a+`"}]`), a)
	f.Fuzz(func(t *testing.T, list []byte, ask string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "images.json"), list, 0o600); err != nil {
			t.Fatal(err)
		}
		l := imageList{dir: dir}
		defer l.close()
		if rec, sure := l.find(ask); rec != nil && (sure || rec.ID != ask && !slices.Contains(rec.Names, ask)) {
			t.Errorf("%q: %+v %v", ask, rec, sure)
		}
	})
}
