package imagestore

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

func TestSplitName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"localhost/a:1":           {"localhost/a", "1"},
		"host:5000/a":             {"host:5000/a", ""},
		"host:5000/a:x":           {"host:5000/a", "x"},
		"host/a@sha256:0123":      {"host/a", ""},
		"host:5000/a:x@sha256:01": {"host:5000/a:x", ""},
	} {
		if r, tag := SplitName(in); r != want[0] || tag != want[1] {
			t.Errorf("SplitName(%q) = %q, %q", in, r, tag)
		}
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"one", "localhost/one:v1", true},
		{"one:v1", "localhost/one:v1", true},
		{"one:v2", "localhost/one:v1", false},
		{"localhost/*", "localhost/one:v1", true},
		{"localhost/*", "docker.io/library/one:v1", false},
		{"library/one", "docker.io/library/one:v1", true},
		{"o*:v?", "localhost/one:v1", true},
		{"ne", "localhost/one:v1", false},
		{"", "localhost/one:v1", false},
	} {
		if got := reference(c.pattern)(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
	if !MatchName("localhost/one:v1", "one") || MatchName("localhost/one:v1", "o*") || MatchName("localhost/one:v1", "[") {
		t.Error("a name is not taken literally")
	}
}

func TestParseUntil(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.Local)
	for in, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "1000": time.Unix(1000, 0), "2025-12-31": time.Date(2025, 12, 31, 0, 0, 0, 0, time.Local),
		"2026-01-01T00:00:00Z": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := ParseUntil(in, now); err != nil || !got.Equal(want) {
			t.Errorf("ParseUntil(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "soon", "-1h", "-5"} {
		if _, err := ParseUntil(in, now); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("ParseUntil(%q): %v", in, err)
		}
	}
}

func FuzzParseFilters(f *testing.F) {
	f.Add("label=a=b")
	f.Add("reference=[a-")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = ParseFilters([]string{s}, FilterKeys) })
}

// put records an image of one layer that holds one file.
func put(t *testing.T, st *store.Store, content string, age time.Duration, names ...string) *image.Stored {
	t.Helper()
	return imagetest.Put(t, st, imagetest.Spec{
		Names: names, Layers: []imagetest.Files{{"f": "base"}, {"g": content}},
		Configure: func(i *image.Image) {
			created := time.Now().Add(-age).Round(time.Second)
			i.Created = &created
			i.Config.Labels = map[string]string{"content": content}
		},
	})
}

func TestListAndSelect(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	old := put(t, st, "old", 48*time.Hour, "localhost/old:1", "localhost/also:2")
	recent := put(t, st, "new", time.Hour, "localhost/new:1")
	dangling := put(t, st, "none", 2*time.Hour)
	base := imagetest.Put(t, st, imagetest.Spec{Layers: []imagetest.Files{{"f": "base"}}})
	images, err := List(st)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) (define.ImageID, error) {
		if name == "new" {
			return recent.ID, nil
		}
		return "", define.ErrNotFound
	}
	for _, c := range []struct{ filters, want string }{
		{"dangling=false", "new old"},
		{"dangling=true intermediate=false", "none"},
		{"intermediate=true", "base"},
		{"reference=o*", "old"},
		{"reference=o* reference=new", "new old"},
		{"label=content", "new none old"},
		{"label=content=old label=content", "old"},
		{"label=content=old label=content=new", ""},
		{"before=new label=content", "none old"},
		{"since=new label=content", ""},
		{"after=new label=content", ""},
		{"until=24h label=content", "old"},
		{"readonly=false dangling=false", "new old"},
		{"id=" + string(old.ID)[:12], "old"},
		{"id=sha256:" + string(dangling.ID), "none"},
	} {
		f, err := ParseFilters(strings.Fields(c.filters), FilterKeys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Select(st, images, f, find)
		if err != nil {
			t.Fatal(err)
		}
		labels := map[define.ImageID]string{old.ID: "old", recent.ID: "new", dangling.ID: "none", base.ID: "base"}
		var names []string
		for _, i := range got {
			names = append(names, labels[i.ImageID()])
			if i.Size <= 0 {
				t.Errorf("image %s has the size %d", i.ID, i.Size)
			}
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.filters, names, c.want)
		}
	}
	if _, err := Select(st, images, Filters{"before": {"nosuch"}}, find); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("before=nosuch: %v", err)
	}
	sizes, err := LayerSizes(st, old.TopLayer)
	if err != nil || len(sizes) != 2 || slices.Min(sizes) <= 0 {
		t.Errorf("layer sizes %v, %v", sizes, err)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	img := put(t, st, "x", 0, "localhost/a:1", "localhost/b:1")
	// By one of several names: the name only.
	r, err := Remove(st, Target{ID: img.ID, Name: "localhost/a:1"}, false)
	if err != nil || !slices.Equal(r.Untagged, []string{"localhost/a:1"}) || len(r.Deleted) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	// In use by a container: kept, and the container is named.
	c, err := st.Raw().CreateContainer("", []string{"worker"}, string(img.ID), "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Remove(st, Target{ID: img.ID, Name: "localhost/b:1"}, false)
	if !errors.Is(err, define.ErrInUse) || !strings.Contains(err.Error(), "worker") || !strings.Contains(err.Error(), "--force") {
		t.Fatalf("in use: %v", err)
	}
	if used, err := InUse(st, img.ID); !used || err != nil {
		t.Errorf("InUse: %v, %v", used, err)
	}
	// Forced: the container goes too.
	r, err = Remove(st, Target{ID: img.ID, Name: "localhost/b:1"}, true)
	if err != nil || !slices.Equal(r.Deleted, []define.ImageID{img.ID}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := st.Raw().Container(c.ID); err == nil {
		t.Error("the container is still there")
	}
	if _, err := Remove(st, Target{ID: img.ID}, true); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if n, err := LayerBytes(st); n != 0 || err != nil {
		t.Errorf("%d bytes of layers are left, %v", n, err)
	}
}

func TestRemoveByIDWithSeveralNames(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	img := put(t, st, "x", 0, "localhost/a:1", "localhost/b:1")
	_, err := Remove(st, Target{ID: img.ID}, false)
	if !errors.Is(err, define.ErrInUse) || !strings.Contains(err.Error(), "localhost/b:1") {
		t.Errorf("%v", err)
	}
	if r, err := Remove(st, Target{ID: img.ID}, true); err != nil || len(r.Untagged) != 2 || len(r.Deleted) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}
