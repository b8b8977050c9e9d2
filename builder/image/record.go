package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Record writes the encoded image to the store under names, in one step: it
// is complete or it is not there. Names, which must be full ("host/path:tag"),
// move from the images that had them. An image of the same ID gets the names
// added, and its manifest replaced.
//
// Names are set last, so that one never points at an image that a crash left
// half written; such an image is nameless, and the next Record of it
// completes it.
func Record(st *store.Store, e *Encoded, top define.LayerID, names []string) error {
	return record(ahead(st), e, top, names)
}

// recorder is the part of a store that images are written to.
type recorder interface {
	bigData
	CreateImage(id string, names []string, layer, metadata string, options *storage.ImageOptions) (*storage.Image, error)
	SetImageBigData(id, key string, data []byte, digestManifest func([]byte) (digest.Digest, error)) error
	AddNames(id string, names []string) error
	Delete(id string) error
}

func record(st recorder, e *Encoded, top define.LayerID, names []string) error {
	// The image may be removed or made by somebody else between two calls.
	for attempt := 0; ; attempt++ {
		err := recordOnce(st, e, top, names)
		switch {
		case err == nil:
			return nil
		case attempt < 3 && (errors.Is(err, storage.ErrDuplicateID) || errors.Is(err, storage.ErrImageUnknown)):
			continue
		case errors.Is(err, storage.ErrLayerUnknown):
			return fmt.Errorf("recording image %s: its layer %s: %w in the store", e.ID.Short(), top, define.ErrNotFound)
		}
		return fmt.Errorf("recording image %s in the store: %w", e.ID.Short(), err)
	}
}

func recordOnce(st recorder, e *Encoded, top define.LayerID, names []string) error {
	id := string(e.ID)
	items := e.items()
	rec, err := st.Image(id)
	switch {
	case err == nil && rec.ID == id:
		return refresh(st, rec, items, top, names)
	case err != nil && !errors.Is(err, storage.ErrImageUnknown):
		return err
	}
	options := &storage.ImageOptions{
		CreationDate: createdOf(e.Config),
		Digest:       e.ManifestDigest,
		BigData:      items,
	}
	// "{}" is containers/image's metadata of an image without signatures.
	if _, err := st.CreateImage(id, nil, string(top), "{}", options); err != nil {
		return err
	}
	return nameOrDelete(st, id, names)
}

// nameOrDelete names an image that was just made.
func nameOrDelete(st recorder, id string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	err := st.AddNames(id, names)
	if err == nil {
		return nil
	}
	// Delete takes the record only: the layers belong to the cache.
	if undo := st.Delete(id); undo != nil {
		return fmt.Errorf("%w (and removing it again: %v)", err, undo)
	}
	return err
}

func (e *Encoded) items() []storage.ImageBigDataOption {
	config := digest.NewDigestFromEncoded(digest.SHA256, string(e.ID))
	return []storage.ImageBigDataOption{
		{Key: config.String(), Data: e.Config, Digest: config},
		{Key: storage.ImageDigestManifestBigDataNamePrefix + "-" + e.ManifestDigest.String(), Data: e.Manifest, Digest: e.ManifestDigest},
		{Key: storage.ImageDigestBigDataKey, Data: e.Manifest, Digest: e.ManifestDigest},
	}
}

// refresh completes an image that is there. Only what differs is written:
// each write rewrites and syncs the store's whole list of images.
func refresh(st recorder, rec *storage.Image, items []storage.ImageBigDataOption, top define.LayerID, names []string) error {
	if rec.TopLayer != string(top) {
		return fmt.Errorf("an image of this ID with another top layer (%s, not %s) is there: %w", rec.TopLayer, top, define.ErrInUse)
	}
	for _, item := range items {
		if rec.BigDataDigests[item.Key] == item.Digest && slices.Contains(rec.BigDataNames, item.Key) {
			continue
		}
		sum := func([]byte) (digest.Digest, error) { return item.Digest, nil }
		if err := st.SetImageBigData(rec.ID, item.Key, item.Data, sum); err != nil {
			return err
		}
	}
	missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(rec.Names, n) })
	if len(missing) == 0 {
		return nil
	}
	return st.AddNames(rec.ID, missing)
}

// createdOf reads the creation time of a config; listings sort by it. Zero
// makes the store take the present.
func createdOf(config []byte) time.Time {
	var doc struct {
		Created *time.Time `json:"created"`
	}
	if err := json.Unmarshal(config, &doc); err != nil || doc.Created == nil {
		return time.Time{}
	}
	return *doc.Created
}
