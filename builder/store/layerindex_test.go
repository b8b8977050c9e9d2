package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/idtools"
)

func layerName(i int) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(i)))
	return hex.EncodeToString(sum[:])
}

// listOf writes a list as the library does: to another file, which is renamed.
func listOf(t testing.TB, path string, layers []storage.Layer) {
	t.Helper()
	b, err := json.Marshal(layers)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func manyLayers(n int) []storage.Layer {
	layers := make([]storage.Layer, n)
	for i := range layers {
		l := storage.Layer{
			ID: layerName(i), Created: time.Unix(int64(i), 5).UTC(), UncompressedDigest: digest.FromString(fmt.Sprint(i)), UncompressedSize: int64(i),
			Names: []string{"a \"quoted\" {name]", "\\"}, Metadata: `{"parent":"x"}`, UIDs: []uint32{0, 1},
		}
		if i > 0 {
			l.Parent = layers[i-1].ID
		}
		if i%3 == 1 {
			l.UIDMap = []idtools.IDMap{{Size: 1}}
		}
		layers[i] = l
	}
	return layers
}

// check compares every answer with the list.
func checkIndex(t *testing.T, x *layerIndex, list, index string, layers []storage.Layer) {
	t.Helper()
	for i := range layers {
		l := &layers[i]
		key, ok := layerKey(l.ID)
		if !ok {
			t.Fatal(l.ID)
		}
		rec, ok := x.find(list, func() (string, error) { return index, nil }, key)
		if !ok {
			t.Fatalf("layer %d is not found", i)
		}
		if want := (LayerRecord{l.ID, l.Parent, l.UncompressedDigest, l.UncompressedSize, l.Created, len(l.UIDMap) > 0}); *rec != want {
			t.Fatalf("layer %d is %+v, want %+v", i, *rec, want)
		}
	}
	key, _ := layerKey(layerName(-1))
	if rec, ok := x.find(list, func() (string, error) { return index, nil }, key); ok {
		t.Fatalf("an unknown layer is found: %+v", rec)
	}
}

func TestLayerIndex(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list, index := filepath.Join(dir, "layers.json"), filepath.Join(dir, "layers.index")
	layers := manyLayers(600)
	listOf(t, list, layers)
	checkIndex(t, &layerIndex{}, list, index, layers)
	if _, err := os.Stat(index); err == nil {
		t.Fatal("a list written just now was trusted not to change again")
	}
	writer := &layerIndex{later: time.Hour}
	checkIndex(t, writer, list, index, layers)
	whole, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	reader := &layerIndex{}
	checkIndex(t, reader, list, index, layers)
	if reader.all != nil || reader.file == nil {
		t.Error("the list was read although there is an index")
	}
	reader.drop()
	// Damage is noticed: what is damaged is asked of the library.
	for i := 0; i < len(whole); i += 97 {
		b := bytes.Clone(whole)
		b[i] ^= 1
		for _, b := range [][]byte{b, whole[:i]} {
			if err := os.WriteFile(index, b, 0o600); err != nil {
				t.Fatal(err)
			}
			x := &layerIndex{}
			for i := range layers[:20] {
				key, _ := layerKey(layers[i].ID)
				if rec, ok := x.find(list, func() (string, error) { return index, nil }, key); ok && (rec.ID != layers[i].ID || rec.Parent != layers[i].Parent || rec.Size != int64(i)) {
					t.Fatalf("damaged at %d: %+v", i, rec)
				}
			}
			x.drop()
		}
	}
	// Another list in its place, of the same length and time.
	if err := os.WriteFile(index, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(list)
	if err != nil {
		t.Fatal(err)
	}
	checkIndex(t, reader, list, index, layers)
	layers[7].UncompressedDigest = digest.FromString("other")
	listOf(t, list, layers)
	if err := os.Chtimes(list, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*layerIndex{{}, reader, writer} {
		checkIndex(t, x, list, index, layers)
		x.drop()
	}
}

// What the index cannot hold, or must not, is left to the library.
func TestScanLayersOdd(t *testing.T) {
	t.Parallel()
	id := layerName(1)
	for text, found := range map[string]int{
		`[]`: 0, ` [ ] `: 0, `[{}]`: 0, `[{"id":"short"}]`: 0,
		`[{"id":"` + id + `"}]`: 1,
		"[ { \"id\" : \"" + id + "\" , \"diff-size\" : 5 } ,\n{\"names\":[]} ]": 1,
		`[{"id":"` + id + `","parent":"other"}]`:                                0,
		`[{"id":"` + id + `","diff-digest":"sha512:00"}]`:                       0,
		`[{"id":"` + id + `","created":"0001-01-01T00:00:00Z"}]`:                0,
		`[{"id":"` + id + `","flags":{"incomplete":true}}]`:                     -1,
		``: -1, `{}`: -1, `[`: -1, `[{]`: -1, `[{"id"}]`: -1, `[{"id":"x]`: -1, `[{"a":"\`: -1, `[{}{}]`: -1, `[] x`: -1, `[{"a":[}]`: -1,
	} {
		all, err := scanLayers([]byte(text))
		if found < 0 && err == nil || found >= 0 && (err != nil || all.len() != found) {
			t.Errorf("%s: %d layers, %v; want %d", text, all.len(), err, found)
		}
	}
}

// FuzzScanLayers: no panic, and nothing is found that a whole reader of JSON
// does not see.
func FuzzScanLayers(f *testing.F) {
	b, err := json.Marshal(manyLayers(3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`[{"id":"` + layerName(1) + `","a":{"b":[1,"}"]}}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := scanLayers(b)
		if err != nil || all.len() == 0 || !json.Valid(b) {
			return
		}
		var list []map[string]json.RawMessage
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, l := range list {
			var id string
			_ = json.Unmarshal(l["id"], &id)
			seen[id] = true
		}
		for i := range all.len() {
			if rec := decodeLayer(all.at(i)); !seen[rec.ID] {
				t.Fatalf("%s is in no object of %s", rec.ID, b)
			}
		}
	})
}

// The store answers as the library does, also for what it changed itself.
func TestStoreLayer(t *testing.T) {
	st, _ := newStore(t, "vfs")
	parent := ""
	for i := range 3 {
		l, err := st.Raw().CreateLayer("", parent, nil, "", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := st.Layer(l.ID)
		if err != nil || rec.ID != l.ID || rec.Parent != parent || !rec.Created.Equal(l.Created) {
			t.Fatalf("layer %d: %+v, %v; want %+v", i, rec, err, l)
		}
		parent = l.ID
	}
	if _, err := st.Layer(parent[:12]); err != nil {
		t.Errorf("the beginning of an ID: %v", err)
	}
	if err := st.Raw().DeleteLayer(parent); err != nil {
		t.Fatal(err)
	}
	if rec, err := st.Layer(parent); err == nil {
		t.Errorf("a deleted layer is there: %+v", rec)
	}
}

func BenchmarkLayer20000(b *testing.B) {
	dir := b.TempDir()
	list, index := filepath.Join(dir, "layers.json"), filepath.Join(dir, "layers.index")
	listOf(b, list, manyLayers(20_000))
	key, _ := layerKey(layerName(77))
	for name, later := range map[string]time.Duration{"scan": 0, "index": time.Hour} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				x := &layerIndex{later: later}
				if _, ok := x.find(list, func() (string, error) { return index, nil }, key); !ok {
					b.Fatal("not found")
				}
				x.drop()
			}
		})
	}
}
