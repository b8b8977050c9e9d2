package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// InstancesKey is the big data where podman and buildah keep, for each manifest of a list,
// the reference that it is pushed from.
const InstancesKey = "instances.json"

// RecordIndex writes a list of images of the store to the store, under names,
// as "podman manifest create" and "add" do. Its ID is the digest of the list:
// recording the same list again adds the names. Load of the ID returns it
// with the media type of a list.
func RecordIndex(st *store.Store, index []byte, images []*Stored, names []string) (define.ImageID, error) {
	m, err := ParseManifest(index)
	if err != nil {
		return "", err
	}
	if !IsIndex(m.MediaType) {
		return "", fmt.Errorf("recording a list of images: the manifest is none: %w", define.ErrInvalid)
	}
	instances := map[digest.Digest]string{}
	for _, img := range images {
		instances[img.Digest] = StoreReference(st, img.ID)
	}
	sum := digest.FromBytes(index)
	id := define.ImageID(sum.Encoded())
	instances[""] = string(id) // as buildah notes the list itself
	where, err := json.Marshal(instances)
	if err != nil {
		return "", fmt.Errorf("recording a list of images: %w", err)
	}
	items := []storage.ImageBigDataOption{
		{Key: storage.ImageDigestBigDataKey, Data: index, Digest: sum},
		{Key: InstancesKey, Data: where, Digest: digest.FromBytes(where)},
	}
	if err := recordIndex(ahead(st), string(id), items, names); err != nil {
		return "", fmt.Errorf("recording the list of images %s in the store: %w", id.Short(), err)
	}
	return id, nil
}

// StoreReference is how instances.json writes an image of the store.
func StoreReference(st *store.Store, id define.ImageID) string {
	return fmt.Sprintf("containers-storage:[%s@%s+%s]@%s", st.Raw().GraphDriverName(), st.Raw().GraphRoot(), st.Raw().RunRoot(), id)
}

func recordIndex(st recorder, id string, items []storage.ImageBigDataOption, names []string) error {
	rec, err := st.Image(id)
	if err == nil && rec.ID == id {
		return refresh(st, rec, items, "", names)
	}
	if err != nil && !errors.Is(err, storage.ErrImageUnknown) {
		return err
	}
	options := &storage.ImageOptions{Digest: items[0].Digest, BigData: slices.Clone(items)}
	if _, err := st.CreateImage(id, nil, "", "{}", options); err != nil {
		return err
	}
	return nameOrDelete(st, id, names)
}
