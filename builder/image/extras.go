package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// ExtrasKey is the big data of a list's record for manifests of the list that
// are no images of the store: artifacts and attestations.
const ExtrasKey = "strata-extras.json"

// Extras are manifests and what they refer to, by digest.
type Extras struct {
	Manifests map[digest.Digest][]byte `json:"manifests"`
	Blobs     map[digest.Digest]Blob   `json:"blobs"`
}

// Blob is content that a manifest refers to: data, or a file of the host that
// is read, and must be as it was, when the list is pushed.
type Blob struct {
	File string `json:"file,omitempty"`
	Data []byte `json:"data,omitempty"`
	Size int64  `json:"size"` // bytes
}

// Add adds a manifest.
func (e *Extras) Add(manifest []byte, blobs map[digest.Digest]Blob) digest.Digest {
	if e.Manifests == nil {
		e.Manifests = map[digest.Digest][]byte{}
	}
	if e.Blobs == nil {
		e.Blobs = map[digest.Digest]Blob{}
	}
	sum := digest.FromBytes(manifest)
	e.Manifests[sum] = manifest
	for d, b := range blobs {
		e.Blobs[d] = b
	}
	return sum
}

// Empty reports that there is no manifest.
func (e *Extras) Empty() bool { return e == nil || len(e.Manifests) == 0 }

// LoadExtras reads those of a list; one without any has empty ones.
func LoadExtras(st *store.Store, id define.ImageID) (*Extras, error) {
	e := &Extras{}
	rec, err := st.Raw().Image(string(id))
	if err != nil {
		return nil, fmt.Errorf("reading image %s from the store: %w", id.Short(), err)
	}
	if _, there := rec.BigDataSizes[ExtrasKey]; !there {
		return e, nil
	}
	data, err := readItem(st.Raw(), rec, ExtrasKey)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(data, e)
	}
	if err != nil {
		return nil, fmt.Errorf("list of images %s in the store is damaged: %w", id.Short(), err)
	}
	for d, m := range e.Manifests {
		if digest.FromBytes(m) != d {
			return nil, fmt.Errorf("list of images %s in the store is damaged: its manifest %s has another digest: %w", id.Short(), d, define.ErrInvalid)
		}
	}
	return e, nil
}

// SaveExtras writes those of a list's record.
func SaveExtras(st *store.Store, id define.ImageID, e *Extras) error {
	data, err := marshal("manifests beside the images", e)
	if err != nil {
		return err
	}
	if len(data) > MaxDocument {
		return fmt.Errorf("list of images %s: what it holds beside its images has %d bytes, more than %d: %w", id.Short(), len(data), MaxDocument, define.ErrInvalid)
	}
	sum := func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }
	if err := st.Raw().SetImageBigData(string(id), ExtrasKey, data, sum); err != nil {
		return fmt.Errorf("writing the list of images %s: %w", id.Short(), err)
	}
	return nil
}
