package transport_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

// A part of an image is fetched without the layers above it, and without those
// that the store has.
func TestPullPart(t *testing.T) {
	t.Parallel()
	spec := imagetest.Spec{Layers: append(slices.Clone(twoLayers), imagetest.Files{"three": "3"})}
	reg, id := pushed(t, registrytest.Options{}, spec)
	st := imagetest.Store(t)
	c, _ := client(t, st, plainHTTP)
	name := "docker://" + reg.Host() + "/app:v1"
	r, err := c.Look(t.Context(), name, define.HostPlatform())
	if err != nil {
		t.Fatal(err)
	}
	_, diffIDs, err := image.ParseConfig(r.Config)
	if err != nil || len(diffIDs) != 3 || string(digest.FromBytes(r.Config).Encoded()) != string(id) {
		t.Fatalf("%v %v", diffIDs, err)
	}
	part := func(layers ...image.Layer) *image.Encoded {
		enc, err := image.New(define.HostPlatform()).Encode(define.FormatOCI, layers)
		if err != nil {
			t.Fatal(err)
		}
		return enc
	}
	first, second := r.Manifest.Layers[0], r.Manifest.Layers[1]
	first.DiffID, second.DiffID = diffIDs[0], diffIDs[1]
	one := part(first)
	fetched := func() (n []int) {
		for _, l := range r.Manifest.Layers {
			n = append(n, reg.Count("GET", "/blobs/"+l.Digest.String()))
		}
		return n
	}
	if err := c.PullPart(t.Context(), r, one); err != nil {
		t.Fatal(err)
	}
	if n := fetched(); !slices.Equal(n, []int{1, 0, 0}) {
		t.Errorf("layers fetched for the first: %v", n)
	}
	stored, err := image.Load(st, one.ID)
	if err != nil || len(stored.Names) != 0 || !slices.Equal(stored.DiffIDs, diffIDs[:1]) {
		t.Fatalf("%+v %v", stored, err)
	}
	// What lies below is named as the store has it.
	if err := c.PullPart(t.Context(), r, part(image.Layer{DiffID: diffIDs[0], Digest: diffIDs[0], Size: first.Size}, second)); err != nil {
		t.Fatal(err)
	}
	if n := fetched(); !slices.Equal(n, []int{1, 1, 0}) {
		t.Errorf("layers fetched for the second: %v", n)
	}
	// A blob is not what its diff ID says.
	third := r.Manifest.Layers[2]
	third.DiffID = digest.FromString("something else")
	lie := part(third)
	if err := c.PullPart(t.Context(), r, lie); err == nil {
		t.Error("a layer of another diff ID was taken")
	}
	if _, err := image.Load(st, lie.ID); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("it was stored: %v", err)
	}
	if _, err := c.Look(t.Context(), "docker://"+reg.Host()+"/app:none", define.HostPlatform()); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
	if _, err := c.Look(t.Context(), "oci:dir", define.HostPlatform()); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("an image of no registry: %v", err)
	}
}

// The policy is asked about the image itself.
func TestLookPolicy(t *testing.T) {
	t.Parallel()
	reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
	o := plainHTTP
	o.SignaturePolicy = filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(o.SignaturePolicy, []byte(`{"default":[{"type":"reject"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := client(t, imagetest.Store(t), o)
	if r, err := c.Look(t.Context(), "docker://"+reg.Host()+"/app:v1", define.HostPlatform()); err == nil {
		t.Errorf("the policy was not asked: %+v", r)
	}
	if n := reg.Count("", "/blobs/"); n != 0 {
		t.Errorf("%d blobs were fetched all the same", n)
	}
}
