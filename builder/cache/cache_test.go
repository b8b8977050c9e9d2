package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

var step2 = Slot{Build: "b", Stage: "0", N: 2, Instruction: "RUN"}

func TestLookup(t *testing.T) {
	t.Parallel()
	c, ms, _ := newCache(t)
	k := key(PartParent, "x", PartInstruction, "RUN a")
	if _, ok := lookup(t, c, k); ok {
		t.Fatal("a hit in an empty cache")
	}
	want := Result{
		Layer: layerID("l"), DiffID: digest.FromString("d"), Size: 7,
		Created: time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC), Note: `{"a":"b"}`,
	}
	save(t, c, step2, k, want)
	if _, ok := lookup(t, c, k); ok {
		t.Fatal("a hit although the store has no such layer")
	}
	ms.add("", want.Layer)
	got, ok := lookup(t, c, k)
	if !ok || *got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if _, ok := lookup(t, c, key(PartParent, "y", PartInstruction, "RUN a")); ok {
		t.Error("a hit for another key")
	}
	if n := count(t, c, "tmp"); n != 0 {
		t.Errorf("%d temporary files left", n)
	}
}

func TestLookupWithoutLayer(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	k := key("a", "b")
	save(t, c, step2, k, Result{Note: "metadata only"})
	if r, ok := lookup(t, c, k); !ok || r.Note != "metadata only" {
		t.Errorf("got %+v, %v", r, ok)
	}
}

func TestLookupLongNote(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	k := key("a", "b")
	for _, n := range []int{firstRead - headSize - 200, firstRead, 100_000} {
		note := strings.Repeat("n", n)
		save(t, c, step2, k, Result{Note: note})
		if r, ok := lookup(t, c, k); !ok || r.Note != note {
			t.Errorf("a note of %d bytes was not returned", n)
		}
	}
	if err := c.Save(context.Background(), step2, k, Result{Note: strings.Repeat("n", maxResult)}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("an endless note: %v", err)
	}
}

// The store also finds layers by name and by a beginning of their ID.
func TestLookupExactLayer(t *testing.T) {
	t.Parallel()
	c, ms, _ := newCache(t)
	l := ms.layers
	other := string(layerID("other"))
	ms.add("", define.LayerID(other))
	named := l[other]
	named.Names = []string{string(layerID("l"))}
	l[other] = named
	k := key("a", "b")
	save(t, c, step2, k, Result{Layer: layerID("l")})
	if _, ok := lookup(t, c, k); ok {
		t.Error("a layer's name passed for its ID")
	}
	for _, bad := range []define.LayerID{"abc", "../../../etc/passwd", define.LayerID(strings.Repeat("A", 64))} {
		if err := c.Save(context.Background(), step2, k, Result{Layer: bad}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("layer %q: %v", bad, err)
		}
	}
}

// Whatever single byte is wrong and wherever a record ends: no panic, and
// either a miss or the very result that was saved.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	c, ms, _ := newCache(t)
	k := key(PartParent, "x", PartInstruction, "RUN a")
	want := Result{Layer: layerID("l"), Note: "note"}
	ms.add("", want.Layer)
	save(t, c, step2, k, want)
	whole, err := os.ReadFile(path(c, k))
	if err != nil {
		t.Fatal(err)
	}
	end := len(whole) - len(mustParts(k))
	try := func(b []byte, must bool, what string) {
		t.Helper()
		if err := os.WriteFile(path(c, k), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, ok := lookup(t, c, k)
		if must && ok {
			t.Errorf("%s: a hit", what)
		}
		if ok && *r != want {
			t.Errorf("%s: a wrong result: %+v", what, r)
		}
		if _, err := c.Explain(context.Background(), step2, key("a", "b")); err != nil {
			t.Errorf("%s: explain: %v", what, err)
		}
	}
	for i := range whole {
		b := append([]byte(nil), whole...)
		b[i] ^= 0x40
		try(b, i < end, fmt.Sprintf("byte %d", i))
		try(whole[:i], i < end, fmt.Sprintf("%d bytes", i))
	}
	try(make([]byte, len(whole)), true, "zeros")
	try(append(append([]byte(nil), whole...), "more"...), false, "more at the end")

	// A good record in another key's place.
	other := key("other", "key")
	if err := os.MkdirAll(filepath.Dir(path(c, other)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path(c, other), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := lookup(t, c, other); ok {
		t.Error("the record of another key is a hit")
	}
}

func mustParts(k *Key) []byte { b, _ := encodeParts(k); return b }

// What is not a file in a record's place is a miss as well, and is not waited
// for.
func TestForeignObjects(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"link":      func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, _ := newCache(t)
			k := key("a", "b")
			if err := os.MkdirAll(filepath.Dir(path(c, k)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := make(path(c, k)); err != nil {
				t.Fatal(err)
			}
			if _, ok := lookup(t, c, k); ok {
				t.Error("a hit")
			}
			if e, err := c.Explain(context.Background(), step2, k); err != nil || e.Text == "" {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

func TestStateDirFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("no space")
	c := &Cache{layers: newMemoryStore(), state: func() (string, error) { return "", cause }, now: time.Now}
	if _, _, err := c.Lookup(context.Background(), key("a", "b")); !errors.Is(err, cause) {
		t.Errorf("lookup: %v", err)
	}
	if err := c.Save(context.Background(), step2, key("a", "b"), Result{}); !errors.Is(err, cause) {
		t.Errorf("save: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k := key("a", "b")
	_, _, err := c.Lookup(ctx, k)
	_, err2 := c.Explain(ctx, step2, k)
	_, err3 := c.Index(ctx, "x")
	for _, err := range []error{err, err2, err3, c.Save(ctx, step2, k, Result{}), c.Seen(ctx, step2, k)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

func TestOpenNoStore(t *testing.T) {
	t.Parallel()
	if _, err := Open(nil); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// A hit counts as a use, once a minute.
func TestTouch(t *testing.T) {
	t.Parallel()
	c, _, clk := newCache(t)
	k := key("a", "b")
	save(t, c, step2, k, Result{})
	used := func() time.Time {
		lookup(t, c, k)
		fi, err := os.Stat(path(c, k))
		if err != nil {
			t.Fatal(err)
		}
		return fi.ModTime()
	}
	first := used()
	clk.advance(touchEvery / 2)
	if !used().Equal(first) {
		t.Error("touched again within a minute")
	}
	clk.advance(touchEvery)
	if got := used(); !got.Equal(clk.now()) {
		t.Errorf("not touched: %v, now %v", got, clk.now())
	}
	clk.advance(-24 * time.Hour)
	if got := used(); !got.Equal(clk.now()) {
		t.Errorf("a time in the future stayed: %v, now %v", got, clk.now())
	}
}

// Several processes save and look up the same keys at the same time.
func TestProcesses(t *testing.T) {
	if dir := os.Getenv("STRATA_CACHE_TEST"); dir != "" {
		hammer(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestProcesses$", "-test.count=1")
			cmd.Env = append(os.Environ(), "STRATA_CACHE_TEST="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	clk := &clock{t: time.Now()}
	c := openAt(dir, newMemoryStore(), clk)
	if n := count(t, c, "tmp"); n != 0 {
		t.Errorf("%d temporary files left", n)
	}
	if n := count(t, c, "records"); n != 10 {
		t.Errorf("%d records, want 10", n)
	}
}

func hammer(t *testing.T, dir string) {
	c := openAt(dir, newMemoryStore(), &clock{t: time.Now()})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				n := fmt.Sprint(i % 10)
				k := key("number", n)
				k.AddFiles(PartFile, manyFiles(20))
				s := Slot{Build: "b", N: i % 10}
				r, ok, err := c.Lookup(context.Background(), k)
				if err != nil || ok && r.Note != n {
					t.Errorf("lookup: %+v, %v", r, err)
				}
				if err := c.Save(context.Background(), s, k, Result{Note: n}); err != nil {
					t.Error(err)
				}
				k.Add("more", "x")
				if _, err := c.Explain(context.Background(), s, k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
