package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

func TestPinsOfEachDriver(t *testing.T) {
	eachDriver(t, func(t *testing.T, st *Store, _ string) {
		base, err := st.Raw().CreateLayer("", "", nil, "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		var pins []string
		for i, parent := range []string{base.ID, "", base.ID} {
			name := workPrefix + "test." + string(rune('1'+i))
			id, err := st.createPin(define.LayerID(parent), name)
			if err != nil {
				t.Fatal(err)
			}
			pins = append(pins, id)
			// As the library sees it.
			l, err := st.Raw().Layer(name)
			if err != nil || l.ID != id || l.Parent != parent || l.Created.IsZero() || len(l.Flags) != 0 {
				t.Errorf("pin on %q: %+v, %v", parent, l, err)
			}
		}
		if err := st.Raw().DeleteLayer(base.ID); !errors.Is(err, storage.ErrLayerHasChildren) {
			t.Errorf("removing the pinned layer: %v", err)
		}
		if at, err := st.Raw().Mount(pins[0], ""); err == nil {
			if err := os.WriteFile(filepath.Join(at, "f"), nil, 0o600); err != nil {
				t.Error(err)
			}
			if _, err := st.Raw().Unmount(pins[0], true); err != nil {
				t.Error(err)
			}
		}
		if err := st.deletePins(pins[:2]); err != nil {
			t.Error(err)
		}
		for i, id := range pins {
			if _, err := st.Raw().Layer(id); (err == nil) != (i == 2) {
				t.Errorf("pin %d: %v", i, err)
			}
			home, _ := st.LayerHome(id)
			if _, err := os.Stat(home); home != "" && (err == nil) != (i == 2) {
				t.Errorf("the directory of pin %d: %v", i, err)
			}
		}
		// A second time, as when another process has swept.
		if err := st.deletePins(pins); err != nil {
			t.Error(err)
		}
		if err := st.Raw().DeleteLayer(base.ID); err != nil {
			t.Errorf("removing the layer that is pinned no longer: %v", err)
		}
		if _, err := st.createPin(define.LayerID(base.ID), "x"); !errors.Is(err, storage.ErrLayerUnknown) && !errors.Is(err, storage.ErrParentUnknown) {
			t.Errorf("a pin on a layer that is gone: %v", err)
		}
		if layers, err := st.Raw().Layers(); err != nil || len(layers) != 0 {
			t.Errorf("left: %+v, %v", layers, err)
		}
	})
}

// TestPinHalf: what a process that was killed leaves of a pin goes with its
// workspace.
func TestPinHalf(t *testing.T) {
	st, _ := newStore(t, "overlay")
	w := st.NewWorkspace()
	if err := w.Pin(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Dir(t.Context()); err != nil {
		t.Fatal(err)
	}
	home, err := st.LayerHome(w.pins[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RemoveTree(nil, home); err != nil {
		t.Fatal(err)
	}
	w.lock.Close() // as the kernel does at the process' end
	sum, err := st.Sweep(t.Context())
	if err != nil || sum.Workspaces != 1 {
		t.Errorf("swept %+v, %v", sum, err)
	}
	if layers, err := st.Raw().Layers(); err != nil || len(layers) != 0 {
		t.Errorf("left: %+v, %v", layers, err)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	id := func(c string) string { return strings.Repeat(c, 64) }
	record := func(c string) string { return `{"id":"` + id(c) + `","names":["x{}],\"` + c + `"]}` }
	all := "[" + record("a") + "," + record("b") + "," + record("c")
	for cut, want := range map[string]string{
		"a": "[" + record("b") + "," + record("c"),
		"b": "[" + record("a") + "," + record("c"),
		"c": "[" + record("a") + "," + record("b"),
		"":  all,
	} {
		r := &records{text: []byte(all)}
		err := r.cut(define.LayerID(id(cut)))
		if string(r.text) != want || (err != nil) != (cut == "") {
			t.Errorf("without %q: %s, %v", cut, r.text, err)
		}
	}
	r := &records{text: []byte("[" + record("a"))}
	if err := r.cut(define.LayerID(id("a"))); err != nil || string(r.text) != "[" {
		t.Errorf("without the only one: %s, %v", r.text, err)
	}
	r = &records{text: []byte(`[{"id":"` + id("a") + `","names":[`)}
	if err := r.cut(define.LayerID(id("a"))); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("a damaged one: %v", err)
	}
}
