package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// chain saves one record per name, an hour after each other, each on top of
// the one before: "a b c" is a chain, "/" starts another one.
func chain(t *testing.T, c *Cache, ms *memoryStore, clk *clock, names string) {
	t.Helper()
	for stack := range strings.SplitSeq(names, "/") {
		parent := define.LayerID("")
		for name := range strings.FieldsSeq(stack) {
			ms.add(parent, layerID(name))
			parent = layerID(name)
			k := key("step", name)
			save(t, c, Slot{Build: name, N: 2, Instruction: "RUN"}, k, Result{Layer: parent, Size: 100})
			setUsed(t, path(c, k), clk.now())
			clk.advance(time.Hour)
		}
	}
	_ = c.Close()
}

func setUsed(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, time.Time{}, at); err != nil {
		t.Fatal(err)
	}
}

func prune(t *testing.T, c *Cache, o PruneOptions) Pruned {
	t.Helper()
	p, err := c.Prune(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rest names the layers that are left, of those given.
func rest(ms *memoryStore, names string) string {
	var left []string
	for _, n := range strings.Fields(names) {
		if _, ok := ms.layers[string(layerID(n))]; ok {
			left = append(left, n)
		}
	}
	return strings.Join(left, " ")
}

func TestPrune(t *testing.T) {
	t.Parallel()
	const all = "a b c d e f"
	tests := []struct {
		name  string
		build string // as chain takes it; it is now an hour after the last
		setup func(c *Cache, ms *memoryStore)
		o     PruneOptions
		left  string
		// records is how many were removed.
		records int
	}{
		{name: "everything", build: "a b c / d e f", left: "", records: 6},
		{name: "an image holds a chain", build: "a b c / d e f", left: "a b", records: 4,
			setup: func(_ *Cache, ms *memoryStore) { ms.images["i"] = string(layerID("b")) }},
		{name: "an image's mapped layer", build: "a / b", left: "b", records: 1,
			setup: func(_ *Cache, ms *memoryStore) {
				ms.images["i"] = ""
				ms.mapped = []string{string(layerID("b"))}
			}},
		{name: "a container", build: "a b c", left: "a", records: 2,
			setup: func(_ *Cache, ms *memoryStore) { ms.containers = []string{string(layerID("a"))} }},
		{name: "a pin", build: "a b c", left: "a b", records: 1,
			setup: func(_ *Cache, ms *memoryStore) { ms.add(layerID("b"), "pin") }},
		{name: "another tool's layers", build: "a b", left: "a", records: 1,
			setup: func(_ *Cache, ms *memoryStore) {
				ms.add("", layerID("foreign"))
				ms.add(layerID("a"), layerID("foreign too"))
			}},
		{name: "a layer already gone", build: "a b", left: "", records: 2,
			setup: func(_ *Cache, ms *memoryStore) { delete(ms.layers, string(layerID("b"))) }},
		{name: "used within three hours", build: "a b c / d e f", o: PruneOptions{OlderThan: 3*time.Hour + time.Minute}, left: "d e f", records: 3},
		{name: "a child is younger", build: "a b c / d", o: PruneOptions{OlderThan: 2*time.Hour + time.Minute}, left: "a b c d"},
		{name: "keep the latest 200 bytes", build: "a / b / c / d", o: PruneOptions{KeepBytes: 200}, left: "c d", records: 2},
		{name: "those below count", build: "a b c / d", o: PruneOptions{KeepBytes: 399}, left: "d", records: 3},
		{name: "those below fit", build: "a b c / d", o: PruneOptions{KeepBytes: 400}, left: "a b c d"},
		{name: "what an image holds does not count", build: "a b c", o: PruneOptions{KeepBytes: 100}, left: "a b c",
			setup: func(_ *Cache, ms *memoryStore) { ms.images["i"] = string(layerID("b")) }},
		{name: "either option keeps", build: "a / b / c", o: PruneOptions{KeepBytes: 200, OlderThan: time.Minute}, left: "b c", records: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, ms, clk := newCache(t)
			chain(t, c, ms, clk, tt.build)
			if tt.setup != nil {
				tt.setup(c, ms)
			}
			before := len(ms.layers)
			tt.o.DryRun = true
			dry := prune(t, c, tt.o)
			if len(ms.layers) != before || count(t, c, "records") != len(strings.Fields(strings.ReplaceAll(tt.build, "/", ""))) {
				t.Fatal("a dry run removed something")
			}
			tt.o.DryRun = false
			p := prune(t, c, tt.o)
			if got := rest(ms, all); got != tt.left {
				t.Errorf("left %q, want %q", got, tt.left)
			}
			if p.Records != tt.records {
				t.Errorf("%d records removed, want %d", p.Records, tt.records)
			}
			if len(p.Layers) != len(ms.deleted) || p.Bytes != int64(100*len(ms.deleted)) {
				t.Errorf("%+v, but these were removed: %v", p, ms.deleted)
			}
			if dry.Records != p.Records || dry.Bytes != p.Bytes || len(dry.Layers) != len(p.Layers) {
				t.Errorf("the dry run said %+v, then %+v", dry, p)
			}
			for _, name := range strings.Fields(all) {
				_, hit := lookup(t, c, key("step", name))
				if want := slices.Contains(strings.Fields(tt.left), name); hit != want {
					t.Errorf("step %s: hit %v, want %v", name, hit, want)
				}
			}
		})
	}
}

// A running build, in another process as far as the lock can tell, keeps
// what it has used.
func TestPruneBesideBuild(t *testing.T) {
	t.Parallel()
	c, ms, clk := newCache(t)
	chain(t, c, ms, clk, "a / b / c")
	build := openAt(filepath.Dir(c.base), ms, clk)
	if _, ok := lookup(t, build, key("step", "a")); !ok {
		t.Fatal("no hit")
	}
	clk.advance(30 * time.Hour / 10)
	save(t, build, step2, key("step", "d"), Result{Layer: layerID("d")})
	setUsed(t, path(c, key("step", "d")), clk.now())
	ms.add("", layerID("d"))
	if p := prune(t, c, PruneOptions{}); p.Records != 2 || rest(ms, "a b c d") != "a d" {
		t.Errorf("%+v, left %q", p, rest(ms, "a b c d"))
	}
	if err := build.Close(); err != nil {
		t.Fatal(err)
	}
	if prune(t, c, PruneOptions{}); rest(ms, "a b c d") != "" {
		t.Errorf("left %q", rest(ms, "a b c d"))
	}
}

// A step executed again leaves a layer that no record names any more.
func TestPruneOrphans(t *testing.T) {
	t.Parallel()
	c, ms, _ := newCache(t)
	k := key("a", "b")
	for _, name := range []string{"first", "first", "second"} {
		ms.add("", layerID(name))
		save(t, c, step2, k, Result{Layer: layerID(name)})
	}
	ms.images["i"] = string(layerID("second"))
	if records, layers, bytes, err := c.Usage(context.Background()); err != nil || records != 1 || layers != 2 || bytes != 200 {
		t.Errorf("usage: %d records, %d layers, %d bytes, %v", records, layers, bytes, err)
	}
	if p := prune(t, c, PruneOptions{}); p.Records != 0 || !slices.Equal(p.Layers, []define.LayerID{layerID("first")}) {
		t.Errorf("%+v", p)
	}
	if n := count(t, c, "orphans"); n != 0 {
		t.Errorf("%d notes left", n)
	}
}

// What is no record, index or slot any more goes as well; what is young and
// unfinished stays.
// TestPruneUnclaimed: a layer that nobody has claimed for a day goes, with
// those below it; one that has a name, or is young, stays.
func TestPruneUnclaimed(t *testing.T) {
	c, ms, clk := newCache(t)
	add := func(parent, name string, age time.Duration, names ...string) {
		p := define.LayerID("")
		if parent != "" {
			p = layerID(parent)
		}
		ms.add(p, layerID(name))
		l := ms.layers[string(layerID(name))]
		l.Created, l.Names = clk.now().Add(-age), names
		ms.layers[string(layerID(name))] = l
	}
	add("", "base", 48*time.Hour)
	add("base", "old", 25*time.Hour)
	add("base", "young", 23*time.Hour)
	add("", "named", 48*time.Hour, "strata-work-x.1")
	add("", "image", 48*time.Hour)
	ms.images["i"] = string(layerID("image"))
	add("", "alone", 48*time.Hour)
	prune(t, c, PruneOptions{})
	if got := rest(ms, "base old young named image alone"); got != "base young named image" {
		t.Errorf("left: %s", got)
	}
}

func TestPruneSweeps(t *testing.T) {
	t.Parallel()
	c, ms, clk := newCache(t)
	chain(t, c, ms, clk, "a / b")
	ms.images["i"] = string(layerID("a"))
	x := openIndex(t, c)
	x.Remember(fileAt(1, clk.now().Add(-time.Hour)), sumOf("x"))
	flush(t, x)
	base, _ := c.dir()
	for name, age := range map[string]time.Duration{
		"tmp/old": 2 * time.Hour, "tmp/young": time.Minute, "records/a/garbage": 0, "records/b/" + strings.Repeat("0", 63): 0,
		"slots/any": 0, "slots/garbage": 0,
	} {
		p := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		setUsed(t, p, clk.now().Add(-age))
	}
	if p := prune(t, c, PruneOptions{}); p.Records != 3 || len(p.Layers) != 1 {
		t.Errorf("%+v", p)
	}
	for kind, want := range map[string]int{"records": 1, "slots": 1, "index": 0, "tmp": 1} {
		if n := count(t, c, kind); n != want {
			t.Errorf("%d files in %s, want %d", n, kind, want)
		}
	}
}

// One layer that cannot be removed does not stop the others, and no record
// is lost with it.
func TestPruneFails(t *testing.T) {
	t.Parallel()
	c, ms, clk := newCache(t)
	chain(t, c, ms, clk, "a / b")
	ms.failDelete = errors.New("read-only file system")
	p, err := c.Prune(context.Background(), PruneOptions{})
	if !errors.Is(err, ms.failDelete) || p.Records != 0 || len(p.Layers) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	ms.failDelete = fmt.Errorf("used by layer x: %w", storage.ErrLayerHasChildren)
	if p := prune(t, c, PruneOptions{}); p.Records != 0 || len(p.Layers) != 0 {
		t.Errorf("a layer that somebody has come to use: %+v", p)
	}
}

func TestPruneNothing(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	if p := prune(t, c, PruneOptions{}); p.Records != 0 || len(p.Layers) != 0 {
		t.Errorf("%+v", p)
	}
	if r, l, b, err := c.Usage(context.Background()); r != 0 || l != 0 || b != 0 || err != nil {
		t.Errorf("%d %d %d %v", r, l, b, err)
	}
}

// The same against containers/storage itself.
func TestPruneStore(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \"vfs\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Nothing of the user's counts, and nothing is made outside dir.
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	st, err := store.Open(context.Background(), store.Options{
		Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "vfs",
	})
	if err != nil {
		if os.Getuid() != 0 {
			t.Skipf("no store without root here: %v", err)
		}
		t.Fatal(err)
	}
	raw := st.Raw()
	t.Cleanup(func() {
		if _, err := raw.Shutdown(true); err != nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := Open(st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	layer := func(parent, name string, names ...string) {
		t.Helper()
		if parent != "" {
			parent = string(layerID(parent))
		}
		if _, err := raw.CreateLayer(string(layerID(name)), parent, names, "", true, nil); err != nil {
			if os.Getuid() != 0 {
				t.Skipf("no layers without root here: %v", err)
			}
			t.Fatal(err)
		}
	}
	record := func(name string) {
		t.Helper()
		save(t, c, step2, key("step", name), Result{Layer: layerID(name), Size: 10})
	}
	// base is pulled and an image; the image "built" ends at a2; b2 is being
	// built upon; c1 is held by nothing but the cache.
	for _, l := range [][2]string{{"", "base"}, {"base", "a1"}, {"a1", "a2"}, {"base", "b1"}, {"b1", "b2"}, {"b2", "b3"}, {"base", "c1"}, {"c1", "c2"}} {
		layer(l[0], l[1])
	}
	layer("b2", "pin", "strata-work-1-2-3")
	for _, n := range []string{"a1", "a2", "b1", "b2", "b3", "c1", "c2"} {
		record(n)
	}
	for i, top := range []string{"base", "a2"} {
		if _, err := raw.CreateImage("", []string{fmt.Sprintf("localhost/image%d", i)}, string(layerID(top)), "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if records, layers, bytes, err := c.Usage(context.Background()); err != nil || records != 7 || layers != 7 || bytes != 70 {
		t.Errorf("usage: %d records, %d layers, %d bytes, %v", records, layers, bytes, err)
	}
	p := prune(t, c, PruneOptions{})
	if p.Records != 3 || p.Bytes != 30 || len(p.Layers) != 3 {
		t.Errorf("%+v, want c2, c1 and b3 removed", p)
	}
	for _, n := range []string{"base", "a1", "a2", "b1", "b2", "b3", "c1", "c2", "pin"} {
		want := !slices.Contains([]string{"b3", "c1", "c2"}, n)
		if raw.Exists(string(layerID(n))) != want {
			t.Errorf("layer %s: there %v, want %v", n, !want, want)
		}
		if _, hit := lookup(t, c, key("step", n)); hit != (want && n != "base" && n != "pin") {
			t.Errorf("step %s: hit %v", n, hit)
		}
	}
	// An image removed elsewhere takes its layers along; their records go.
	if _, err := raw.DeleteImage("localhost/image1", true); err != nil {
		t.Fatal(err)
	}
	if _, hit := lookup(t, c, key("step", "a2")); hit {
		t.Error("a hit although the layer went with its image")
	}
	if e := text(t, c, step2, key("step", "a2")); e != "the cached layer was removed from the store" {
		t.Errorf("%q", e)
	}
}
