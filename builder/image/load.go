package image

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Stored is an image of the store.
type Stored struct {
	Image
	ID       define.ImageID
	Names    []string
	TopLayer define.LayerID
	DiffIDs  []digest.Digest
	// Digest of the manifest the store keeps.
	Digest    digest.Digest
	Manifest  []byte
	RawConfig []byte
	// MediaType is the manifest's. When IsIndex of it, the entry is a list of
	// images, as "podman manifest create" makes: it has no config, no layers
	// and no platform.
	MediaType string
	Created   time.Time
}

// Load reads an image of the store by ID. An ID the store does not have is
// define.ErrNotFound; an image whose data is damaged or missing is an error
// that names it.
func Load(st *store.Store, id define.ImageID) (*Stored, error) {
	return load(st.Raw(), id)
}

// bigData is the part of a store that images are read from.
type bigData interface {
	Image(id string) (*storage.Image, error)
	ImageBigData(id, key string) ([]byte, error)
}

func load(st bigData, id define.ImageID) (*Stored, error) {
	rec, err := st.Image(string(id))
	if err != nil {
		if errors.Is(err, storage.ErrImageUnknown) {
			return nil, fmt.Errorf("image %s: %w in the store", id, define.ErrNotFound)
		}
		return nil, fmt.Errorf("reading image %s from the store: %w", id, err)
	}
	if rec.ID != string(id) {
		// The store also takes names and starts of IDs, which are not unique
		// over time.
		return nil, fmt.Errorf("image %s: %w in the store", id, define.ErrNotFound)
	}
	return fromRecord(st, rec)
}

func fromRecord(st bigData, rec *storage.Image) (*Stored, error) {
	s := &Stored{
		ID: define.ImageID(rec.ID), Names: rec.Names, TopLayer: define.LayerID(rec.TopLayer),
		Created: rec.Created,
	}
	damaged := func(err error) (*Stored, error) {
		return nil, fmt.Errorf("image %s in the store is damaged: %w; remove it and build or pull it again", s.ID.Short(), err)
	}
	man, err := s.readManifest(st, rec)
	if err != nil {
		return damaged(err)
	}
	if IsIndex(man.MediaType) {
		s.Annotations = man.Annotations
		return s, nil
	}
	if s.RawConfig, err = readItem(st, rec, man.Config.String()); err != nil {
		return damaged(err)
	}
	if got := man.Config.Algorithm().FromBytes(s.RawConfig); got != man.Config {
		return damaged(fmt.Errorf("its config has the digest %s instead of %s", got, man.Config))
	}
	img, diffIDs, err := ParseConfig(s.RawConfig)
	if err != nil {
		return damaged(err)
	}
	s.Image, s.DiffIDs = *img, diffIDs
	s.Annotations = man.Annotations
	return s, nil
}

// readManifest reads the manifest that belongs to the image's ID. That is the
// one under "manifest"; but where an index took that place (some versions of
// containers/image did so when they pulled through one), the image's own is
// under "manifest-<digest>".
func (s *Stored) readManifest(st bigData, rec *storage.Image) (*Manifest, error) {
	data, err := readItem(st, rec, storage.ImageDigestBigDataKey)
	if err != nil {
		return nil, err
	}
	man, err := ParseManifest(data)
	if err != nil {
		return nil, err
	}
	if IsIndex(man.MediaType) && rec.TopLayer != "" {
		for _, key := range rec.BigDataNames {
			if !strings.HasPrefix(key, storage.ImageDigestManifestBigDataNamePrefix+"-") {
				continue
			}
			other, err := readItem(st, rec, key)
			if err != nil {
				continue
			}
			if m, err := ParseManifest(other); err == nil && !IsIndex(m.MediaType) && m.Config.Encoded() == rec.ID {
				data, man = other, m
				break
			}
		}
	}
	s.Manifest, s.Digest, s.MediaType = data, digest.FromBytes(data), man.MediaType
	return man, nil
}

func readItem(st bigData, rec *storage.Image, key string) ([]byte, error) {
	if size := rec.BigDataSizes[key]; size > MaxDocument {
		return nil, fmt.Errorf("its %s has %d bytes, more than %d", key, size, MaxDocument)
	}
	data, err := st.ImageBigData(rec.ID, key)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("its %s is missing", key)
		}
		return nil, fmt.Errorf("reading its %s: %w", key, err)
	}
	return data, nil
}
