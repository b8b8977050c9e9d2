package imagestore

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Image is one image of the store.
type Image struct {
	storage.Image
	// Size is the bytes of the layers as they were unpacked, and of the
	// image's documents. Layers that images share count for each of them.
	Size int64
	// Intermediate is set when the image has no name and another image
	// stands on its layers.
	Intermediate bool
	// Listed is set when a list of images that has a name holds the image.
	Listed bool
}

// ImageID is the image's ID in its type.
func (i *Image) ImageID() define.ImageID { return define.ImageID(i.ID) }

// Dangling reports that the image has no name, and belongs to no list of
// images that has one.
func (i *Image) Dangling() bool { return len(i.Names) == 0 && !i.Listed }

// List returns the images, the newest first, equals by ID.
func List(st *store.Store) ([]*Image, error) {
	raw, err := st.Raw().Images()
	if err != nil {
		return nil, err
	}
	layers, err := newChains(st)
	if err != nil {
		return nil, err
	}
	below := map[string]bool{} // layers that an image's top stands on
	seen := map[string]bool{}
	for _, i := range raw {
		if i.TopLayer == "" || seen[i.TopLayer] {
			continue
		}
		seen[i.TopLayer] = true
		for l := layers.parent(i.TopLayer); l != "" && !below[l]; l = layers.parent(l) {
			below[l] = true
		}
	}
	listed := listedDigests(st, raw)
	images := make([]*Image, 0, len(raw))
	for _, r := range raw {
		i := &Image{Image: r, Intermediate: len(r.Names) == 0 && below[r.TopLayer]}
		i.Listed = slices.ContainsFunc(r.Digests, func(d digest.Digest) bool { return listed[d] })
		for l := r.TopLayer; l != ""; l = layers.parent(l) {
			i.Size += layers.size(l)
		}
		for _, n := range r.BigDataSizes {
			i.Size += n
		}
		images = append(images, i)
	}
	slices.SortStableFunc(images, func(a, b *Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return images, nil
}

// listedDigests are the manifests of all lists of images that have a name. A
// list is a record without layers; few stores have any.
func listedDigests(st *store.Store, all []storage.Image) map[digest.Digest]bool {
	var listed map[digest.Digest]bool
	for i := range all {
		r := &all[i]
		if r.TopLayer != "" || len(r.Names) == 0 || r.BigDataSizes[storage.ImageDigestBigDataKey] > image.MaxDocument {
			continue
		}
		data, err := st.Raw().ImageBigData(r.ID, storage.ImageDigestBigDataKey)
		if err != nil {
			continue
		}
		m, err := image.ParseManifest(data)
		if err != nil {
			continue
		}
		for _, d := range m.Manifests {
			if listed == nil {
				listed = map[digest.Digest]bool{}
			}
			listed[d.Digest] = true
		}
	}
	return listed
}

// chains is what is needed of the store's layers, read once.
type chains struct {
	st     *store.Store
	layers map[string]*storage.Layer
}

func newChains(st *store.Store) (*chains, error) {
	all, err := st.Raw().Layers()
	if err != nil {
		return nil, err
	}
	c := &chains{st: st, layers: make(map[string]*storage.Layer, len(all))}
	for i := range all {
		c.layers[all[i].ID] = &all[i]
	}
	return c, nil
}

func (c *chains) parent(id string) string {
	if l := c.layers[id]; l != nil {
		return l.Parent
	}
	return ""
}

// size is the layer's size in bytes. Layers whose size nobody recorded are
// measured, which reads them.
func (c *chains) size(id string) int64 {
	l := c.layers[id]
	if l == nil {
		return 0
	}
	if l.UncompressedDigest == "" && l.UncompressedSize <= 0 {
		if n, err := c.st.Raw().DiffSize(l.Parent, l.ID); err == nil {
			l.UncompressedSize = n
		} else {
			l.UncompressedSize = 0
		}
		l.UncompressedDigest = "measured"
	}
	return max(l.UncompressedSize, 0)
}

// LayerSizes returns the sizes of the layers that end at top, the bottom one
// first.
func LayerSizes(st *store.Store, top define.LayerID) ([]int64, error) {
	c, err := newChains(st)
	if err != nil {
		return nil, err
	}
	var sizes []int64
	for l := string(top); l != ""; l = c.parent(l) {
		sizes = append(sizes, c.size(l))
	}
	slices.Reverse(sizes)
	return sizes, nil
}

// LayerBytes sums up the sizes of all layers whose size is known, each once.
func LayerBytes(st *store.Store) (int64, error) {
	all, err := st.Raw().Layers()
	if err != nil {
		return 0, err
	}
	var n int64
	for i := range all {
		n += max(all[i].UncompressedSize, 0)
	}
	return n, nil
}
