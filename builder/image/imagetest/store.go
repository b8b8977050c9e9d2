package imagetest

import (
	"bytes"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage/pkg/reexec"
)

// Main runs a package's tests; TestMain calls it. What prepare does happens in
// the test process only, and what it returns, when not nil, at the end.
func Main(m *testing.M, prepare ...func() (cleanUp func())) {
	if reexec.Init() {
		os.Exit(0)
	}
	var after []func()
	for _, p := range prepare {
		if f := p(); f != nil {
			after = append(after, f)
		}
	}
	code := m.Run()
	for _, f := range after {
		f()
	}
	os.Exit(code)
}

// Store opens an empty store that ends with the test. The test is skipped for
// users who may not unpack layers.
func Store(t testing.TB) *store.Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers needs root, or root of a user namespace")
	}
	// The default's driver would be probed for, which takes longer than the
	// tests.
	// In memory where possible: the storage library syncs each of its many
	// small writes. Not t.TempDir, as some drivers refuse what names of tests
	// may contain.
	dir, err := os.MkdirTemp("/dev/shm", "imagetest-")
	if err != nil {
		dir, err = os.MkdirTemp("", "imagetest-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// The default's driver would be probed for, which takes longer than the
	// tests.
	st, err := store.Open(t.Context(), store.Options{Root: dir + "/root", RunRoot: dir + "/run", Driver: "vfs"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// Put records the image in the store and loads it again.
func Put(t testing.TB, st *store.Store, s Spec) *image.Stored {
	t.Helper()
	b := s.Build(t)
	parent := ""
	for n, l := range b.Layers {
		// The IDs that containers/image gives, see define.LayerID.
		id := l.DiffID.Encoded()
		if parent != "" {
			id = digest.FromString(parent + "+" + id).Encoded()
		}
		if _, err := st.Raw().Layer(id); err != nil {
			if _, _, err := st.Raw().PutLayer(id, parent, nil, "", false, nil, bytes.NewReader(b.Blobs[n])); err != nil {
				t.Fatal(err)
			}
		}
		parent = id
	}
	if err := image.Record(st, b.Encoded, define.LayerID(parent), s.Names); err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(st, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
