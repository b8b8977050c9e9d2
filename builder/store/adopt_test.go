package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/lockfile"
	"golang.org/x/sys/unix"
)

// staged makes a directory and a record beside the layers.
func staged(t *testing.T, dir, name string, parent define.LayerID) *Staged {
	t.Helper()
	s := &Staged{
		ID: define.LayerID(digest.FromString(name).Encoded()), Parent: parent, Mode: os.ModeDir | 0o755,
		Dir: filepath.Join(dir, "root", "overlay", name), Split: filepath.Join(dir, "root", name+".gz"),
		DiffID: digest.FromString("stream of " + name), Size: 1024, UIDs: []uint32{0}, GIDs: []uint32{0, 5},
	}
	if err := errors.Join(os.Mkdir(s.Dir, 0o755), os.WriteFile(filepath.Join(s.Dir, "file"), []byte(name), 0o644), os.WriteFile(s.Split, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return s
}

func adopt(t *testing.T, st *Store, layers ...*Staged) {
	t.Helper()
	unlock, err := st.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := st.Adopt(layers); err != nil {
		t.Fatal(err)
	}
}

// The library finds the layers, in the directories, with the records, that it
// would have made itself.
func TestAdopt(t *testing.T) {
	st, dir := newStore(t, "overlay")
	if !st.AdoptsTogether() {
		t.Skip("this store takes layers one by one")
	}
	base := baseLayer(t, st)
	a := staged(t, dir, "a", base)
	b := staged(t, dir, "b", a.ID)
	adopt(t, st, a, b)
	again := staged(t, dir, "again", base)
	again.ID = a.ID
	bottom := staged(t, dir, "bottom", "")
	adopt(t, st, again, bottom)
	if !again.Found || bottom.Found || a.Found || errors.Join(a.Err, b.Err, again.Err, bottom.Err) != nil {
		t.Errorf("%+v %+v %+v %+v", a, b, again, bottom)
	}
	for _, want := range []*Staged{a, b, bottom} {
		l, err := st.Raw().Layer(string(want.ID))
		if err != nil || l.Parent != string(want.Parent) || l.UncompressedDigest != want.DiffID || l.UncompressedSize != 1024 || len(l.GIDs) != 2 || len(l.Flags) != 0 {
			t.Errorf("%v: %+v", err, l)
		}
		home := filepath.Join(dir, "root", "overlay", string(want.ID))
		if _, err := os.Stat(filepath.Join(home, "diff", "file")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "root", "overlay-layers", string(want.ID)+".tar-split.gz")); err != nil {
			t.Error(err)
		}
	}
	if lower, err := os.ReadFile(filepath.Join(dir, "root", "overlay", string(b.ID), "lower")); err != nil || strings.Count(string(lower), ":") != 1 {
		t.Errorf("lower %q: %v", lower, err)
	}
	// What the library writes next keeps them, and its own form is ours.
	after := baseLayer(t, st)
	if err := st.Raw().DeleteLayer(string(after)); err != nil {
		t.Fatal(err)
	}
	if layers, err := st.Raw().Layers(); err != nil || len(layers) != 4 {
		t.Errorf("%d layers: %v", len(layers), err)
	}
	for _, id := range []define.LayerID{b.ID, a.ID, base, bottom.ID} {
		if err := st.Raw().DeleteLayer(string(id)); err != nil {
			t.Error(err)
		}
	}
}

// A layer that cannot be taken leaves nothing, what lies on it is not taken
// either, and the others are.
func TestAdoptFails(t *testing.T) {
	st, dir := newStore(t, "overlay")
	if !st.AdoptsTogether() {
		t.Skip("this store takes layers one by one")
	}
	a := staged(t, dir, "a", "")
	b := staged(t, dir, "b", a.ID)
	c := staged(t, dir, "c", b.ID)
	d := staged(t, dir, "d", a.ID)
	orphan := staged(t, dir, "orphan", define.LayerID(digest.FromString("gone").Encoded()))
	if err := os.RemoveAll(b.Dir); err != nil {
		t.Fatal(err)
	}
	adopt(t, st, a, b, c, d, orphan)
	if a.Err != nil || d.Err != nil || b.Err == nil || !errors.Is(c.Err, b.Err) || !errors.Is(orphan.Err, define.ErrNotFound) {
		t.Errorf("%v; %v; %v; %v; %v", a.Err, b.Err, c.Err, d.Err, orphan.Err)
	}
	if layers, err := st.Raw().Layers(); err != nil || len(layers) != 2 {
		t.Errorf("%+v: %v", layers, err)
	}
	for _, l := range []*Staged{b, c, orphan} {
		if _, err := os.Lstat(filepath.Join(dir, "root", "overlay", string(l.ID))); err == nil {
			t.Errorf("%s left its directory", l.ID)
		}
		if _, err := os.Lstat(filepath.Join(dir, "root", "overlay-layers", string(l.ID)+".tar-split.gz")); err == nil {
			t.Errorf("%s left its record", l.ID)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "root", "overlay-layers", "layers.json"))
	if err != nil || strings.Contains(string(text), "incomplete") {
		t.Errorf("%v: %s", err, text)
	}
}

// Of two directories that are the same layer, the first becomes it and the
// other stays where it is.
func TestAdoptTwice(t *testing.T) {
	st, dir := newStore(t, "overlay")
	if !st.AdoptsTogether() {
		t.Skip("this store takes layers one by one")
	}
	one, two := staged(t, dir, "one", ""), staged(t, dir, "two", "")
	two.ID = one.ID
	bad, same := staged(t, dir, "bad", ""), staged(t, dir, "same", "")
	same.ID = bad.ID
	held, err := os.Open(one.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := os.RemoveAll(bad.Dir); err != nil {
		t.Fatal(err)
	}
	adopt(t, st, one, two, bad, same)
	if one.Found || !two.Found || errors.Join(one.Err, two.Err) != nil {
		t.Errorf("%+v %+v", one, two)
	}
	if bad.Err == nil || same.Found || !errors.Is(same.Err, bad.Err) {
		t.Errorf("%+v %+v", bad, same)
	}
	if names, err := held.Readdirnames(-1); err != nil || len(names) != 1 {
		t.Errorf("the first directory has %v: %v", names, err)
	}
	if _, err := os.Stat(filepath.Join(two.Dir, "file")); err != nil {
		t.Error(err)
	}
	if layers, err := st.Raw().Layers(); err != nil || len(layers) != 1 {
		t.Errorf("%+v: %v", layers, err)
	}
}

// While a container is mounted, the driver's directory is another mount than
// that of the records, which no rename crosses.
func TestAdoptAcrossMounts(t *testing.T) {
	st, dir := newStore(t, "overlay")
	if !st.AdoptsTogether() {
		t.Skip("this store takes layers one by one")
	}
	const other = "/dev/shm"
	var here, there unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &here), unix.Stat(other, &there)); err != nil || here.Dev == there.Dev {
		t.Skipf("%s is no other file system: %v", other, err)
	}
	f, err := os.CreateTemp(other, "strata-test-")
	if err != nil {
		t.Skip(err)
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString("record"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l := staged(t, dir, "a", "")
	l.Split = f.Name()
	adopt(t, st, l)
	if l.Err != nil {
		t.Fatal(l.Err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "root", "overlay-layers", string(l.ID)+".tar-split.gz")); err != nil || string(b) != "record" {
		t.Errorf("record %q: %v", b, err)
	}
}

// A process that dies on its way leaves records that the library removes,
// directories included.
func TestAdoptInterrupted(t *testing.T) {
	st, dir := newStore(t, "overlay")
	if !st.AdoptsTogether() {
		t.Skip("this store takes layers one by one")
	}
	whole := staged(t, dir, "whole", "")
	adopt(t, st, whole)
	// All that Adopt does before its last writing.
	half := staged(t, dir, "half", whole.ID)
	layers := filepath.Join(dir, "root", "overlay-layers")
	lock, err := lockfile.GetLockFile(filepath.Join(layers, "layers.lock"))
	if err != nil {
		t.Fatal(err)
	}
	lock.Lock()
	list, err := openRecords(layers, lock)
	if err == nil {
		record := half.record()
		record.Flags = map[string]any{"incomplete": true}
		err = list.write([]*storage.Layer{record})
	}
	if err == nil {
		driver, _ := st.Raw().GraphDriver()
		a := adopting{driver: driver, dir: layers, list: list}
		a.differ, _ = driver.(drivers.DriverWithDiffer)
		err = a.one(half)
	}
	lock.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Raw().Layer(string(half.ID)); !errors.Is(err, storage.ErrLayerUnknown) {
		t.Errorf("the incomplete layer: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "root", "overlay", string(half.ID))); err == nil {
		t.Error("the incomplete layer's directory is left")
	}
	if _, err := st.Raw().Layer(string(whole.ID)); err != nil {
		t.Error(err)
	}
	again := staged(t, dir, "again", whole.ID)
	again.ID = half.ID
	if adopt(t, st, again); again.Found || again.Err != nil {
		t.Errorf("%+v", again)
	}
}

// A list of another form is the library's to read.
func TestAdoptUnknownForm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		text, want string // of one more record
	}{
		{"", `[{"id":"x"`}, {"[]", `[{"id":"x"`}, {"null", `[{"id":"x"`},
		{`[{"id":"a","created":"2020-01-01T00:00:00Z"}]`, `[{"id":"a","created":"2020-01-01T00:00:00Z"},{"id":"x"`},
		{`[ {"id":"a"} ]`, ""}, {"{}", ""}, {`[{"id":"a"}`, ""}, {"[\n]", ""},
	} {
		file := filepath.Join(dir, "layers.json")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		lock, err := lockfile.GetLockFile(filepath.Join(dir, "layers.lock"))
		if err != nil {
			t.Fatal(err)
		}
		lock.Lock()
		list, err := openRecords(dir, lock)
		if err == nil {
			err = list.write([]*storage.Layer{{ID: "x"}})
		}
		lock.Unlock()
		got, readErr := os.ReadFile(file)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if tt.want == "" {
			if !errors.Is(err, define.ErrUnsupported) || string(got) != tt.text {
				t.Errorf("%q: %v, %s", tt.text, err, got)
			}
			continue
		}
		var all []storage.Layer
		if err := errors.Join(err, json.Unmarshal(got, &all)); err != nil || !strings.HasPrefix(string(got), tt.want) || !list.has("x") {
			t.Errorf("%q: %v, %s", tt.text, err, got)
		}
	}
}

// A layer has a record when it is an ID of one, not a parent or a part of it.
func TestHasRecord(t *testing.T) {
	t.Parallel()
	id := digest.FromString("x").Encoded()
	for text, want := range map[string]bool{
		`[{"id":"` + id + `"}`:                                       true,
		`[{"id":"a","parent":"` + id + `"}`:                          false,
		`[{"id":"a","parent":"` + id + `"},{"id":"` + id + `","c":1`: true,
		`[{"id":"` + id + `0"}`:                                      false,
		`[{"id":"` + id[:63] + `"}`:                                  false,
		`[{"id":"` + id[1:] + `"}`:                                   false,
		"":                                                           false,
	} {
		if got := hasRecord([]byte(text), define.LayerID(id)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if hasRecord([]byte(`[{"id":""}`), "") {
		t.Error("a layer without an ID was found")
	}
}

// BenchmarkAdopt is what a group of layers costs in a store that holds some,
// each of 200 bytes in the list.
func BenchmarkAdopt(b *testing.B) {
	for _, held := range []int{10, 20_000} {
		b.Run(fmt.Sprintf("among %d", held), func(b *testing.B) {
			dir := b.TempDir()
			list := []storage.Layer{}
			for i := range held {
				list = append(list, storage.Layer{ID: digest.FromString(fmt.Sprint(i)).Encoded(), UncompressedDigest: digest.FromString("d")})
			}
			text, err := json.Marshal(list)
			if err != nil {
				b.Fatal(err)
			}
			file := filepath.Join(dir, "layers.json")
			lock, err := lockfile.GetLockFile(filepath.Join(dir, "layers.lock"))
			if err != nil {
				b.Fatal(err)
			}
			more := []*storage.Layer{{ID: "x"}, {ID: "y"}}
			for b.Loop() {
				b.StopTimer()
				if err := os.WriteFile(file, text, 0o600); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				lock.Lock()
				r, err := openRecords(dir, lock)
				if err == nil && r.has("z") {
					err = errors.New("found")
				}
				if err == nil {
					err = errors.Join(r.write(more), r.write(more))
				}
				lock.Unlock()
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
