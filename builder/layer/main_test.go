package layer

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/reexec"
)

func TestMain(m *testing.M) {
	if reexec.Init() { // containers/storage unpacks layers in a child of itself
		return
	}
	if child := os.Getenv("STRATA_TEST_CHILD"); child != "" {
		if err := children[child](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// children are what the test binary does when it is started again.
var children = map[string]func() error{}

// newStore opens an empty store with the driver, or skips.
func newStore(t testing.TB, driver string) *store.Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a store needs root or a user namespace; TestInUserNamespace runs this in one")
	}
	dir := t.TempDir()
	o := store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: driver}
	if program := os.Getenv("STRATA_TEST_MOUNT_PROGRAM"); program != "" && driver == "overlay" {
		o.DriverOptions = []string{"overlay.mount_program=" + program}
	}
	st, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leftNothing(t, st)
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		st.Raw().Free()
	})
	return st
}

// leftNothing checks that closed spaces left no workspace, no layer and no
// mount.
func leftNothing(t testing.TB, st *store.Store) {
	t.Helper()
	state, err := st.StateDir()
	if err != nil {
		t.Error(err)
		return
	}
	if entries, err := os.ReadDir(filepath.Join(state, "work")); err == nil && len(entries) > 0 {
		t.Errorf("left in the store: %v", entries)
	}
	layers, err := st.Raw().Layers()
	if err != nil {
		t.Error(err)
	}
	known := []string{"l", "staging", "tempdirs", ".has-mount-program"}
	for _, l := range layers {
		known = append(known, l.ID)
		if strings.HasPrefix(strings.Join(l.Names, " "), "strata-work") {
			t.Errorf("layer %s was left: %v", l.ID, l.Names)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(st.Raw().GraphRoot(), "overlay")); err == nil {
		for _, e := range entries {
			if !slices.Contains(known, e.Name()) {
				t.Errorf("%s was left in overlay/", e.Name())
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(mounts), st.Raw().GraphRoot()) {
		t.Error("mounts were left in the mount namespace")
	}
}

// in returns a path below a root by descriptor.
func in(f *os.File, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name) }

// fixture is a space with helpers that end the test on errors.
type fixture struct {
	t  testing.TB
	st *store.Store
	sp *Space
}

func newFixture(t testing.TB, driver string) *fixture {
	t.Helper()
	return openFixture(t, newStore(t, driver))
}

func openFixture(t testing.TB, st *store.Store) *fixture {
	f := &fixture{t: t, st: st, sp: NewSpace(st)}
	t.Cleanup(f.close)
	return f
}

func (f *fixture) close() {
	f.t.Helper()
	if err := f.sp.Close(); err != nil {
		f.t.Error(err)
	}
}

// step makes a layer of what edit does to the root.
func (f *fixture) step(parent *Layer, b BeginOptions, o FreezeOptions, edit func(root *os.File)) *Layer {
	f.t.Helper()
	ctx := context.Background()
	w, err := f.sp.Begin(ctx, parent, b)
	if err != nil {
		f.t.Fatal(err)
	}
	if edit != nil {
		edit(w.Root())
	}
	l, err := w.Freeze(ctx, o)
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

func (f *fixture) wait(l *Layer) Info {
	f.t.Helper()
	i, err := l.Wait(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return i
}

// tree lists what a view of the chain shows: "name mode content".
func (f *fixture) tree(l *Layer) []string {
	f.t.Helper()
	v, err := f.sp.View(context.Background(), l)
	if err != nil {
		f.t.Fatal(err)
	}
	defer v.Close()
	return list(f.t, in(v.Root(), "."))
}

func list(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name, _ := filepath.Rel(root, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := name + " " + fi.Mode().String()
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(b)
		case fi.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// members lists the names in a committed layer's tar stream.
func (f *fixture) members(id define.LayerID) []string {
	f.t.Helper()
	uncompressed := archive.Uncompressed
	r, err := f.st.Raw().Diff("", string(id), &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	r.Close() // until then the store is locked
	if err != nil {
		f.t.Fatal(err)
	}
	if want, err := f.st.Raw().Layer(string(id)); err != nil || want.UncompressedDigest != digest.FromBytes(b) {
		f.t.Errorf("the exported stream of %s is not the layer's: %v", id, err)
	}
	return tarNames(f.t, b)
}

// check asks the store whether it is sound, digests included.
func (f *fixture) check() {
	f.t.Helper()
	report, err := f.st.Raw().Check(storage.CheckEverything())
	if err != nil {
		f.t.Fatal(err)
	}
	for id, errs := range report.Layers {
		f.t.Errorf("layer %s: %v", id, errs)
	}
}

func write(t testing.TB, root *os.File, name, content string) {
	t.Helper()
	if err := os.MkdirAll(in(root, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in(root, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, root *os.File, name string) {
	t.Helper()
	if err := os.RemoveAll(in(root, name)); err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%q\nwant\n%q", what, got, want)
	}
}

// zeroCopy reports whether uppers become layers as they are, with members
// that are exactly known.
func (f *fixture) zeroCopy() bool {
	ok, _ := f.st.ZeroCopy()
	return ok
}
