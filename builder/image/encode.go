package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

// Layer is one layer as a manifest tells of it.
type Layer struct {
	DiffID digest.Digest
	// Digest, Size and MediaType describe the blob; in the store that is the
	// uncompressed stream. MediaType "" is the format's uncompressed type; a
	// type of the other format is translated.
	Digest    digest.Digest
	Size      int64
	MediaType string
}

// Encoded is an image as bytes.
type Encoded struct {
	ID             define.ImageID
	Config         []byte
	Manifest       []byte
	ManifestDigest digest.Digest
	MediaType      string // of the manifest
	// Lost names what the format could not keep: "annotations" in Docker's.
	Lost []string
}

// document is an image config, in the field order of the specification.
type document struct {
	Created *time.Time `json:"created,omitempty"`
	Author  string     `json:"author,omitempty"`
	Comment string     `json:"comment,omitempty"`
	v1.Platform
	Config  Config    `json:"config"`
	RootFS  v1.RootFS `json:"rootfs"`
	History []History `json:"history,omitempty"`
}

// written is a document with what is read by ParseCacheRecord only.
type written struct {
	document
	Cache *CacheRecord `json:"io.strata.cache,omitempty"`
}

// manifest is an image manifest of either format. It is not v1.Manifest,
// whose descriptors would let base images smuggle in fields such as urls.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// Encode writes config and manifest, deterministically. History that does not
// fit the layers is repaired. An image without a platform, a layer with a
// malformed digest or size, a media type the format has no word for, and a
// document larger than MaxDocument are define.ErrInvalid.
func (i *Image) Encode(f define.Format, layers []Layer) (*Encoded, error) {
	types, err := typesOf(f)
	if err != nil {
		return nil, err
	}
	if i.Platform.OS == "" || i.Platform.Architecture == "" {
		return nil, fmt.Errorf("image has no platform: set its os and architecture: %w", define.ErrInvalid)
	}
	doc := document{
		Created: utc(i.Created), Author: i.Author, Platform: i.Platform, Config: i.Config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: make([]digest.Digest, 0, len(layers))},
	}
	if f == define.FormatDocker {
		doc.Comment = i.Comment
	} else {
		doc.Config.Hostname, doc.Config.Domainname = "", ""
	}
	man := manifest{
		SchemaVersion: 2,
		MediaType:     types.manifest,
		Layers:        make([]descriptor, 0, len(layers)),
	}
	for n, l := range layers {
		d, err := l.describe(types)
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", n+1, len(layers), err)
		}
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, l.DiffID)
		man.Layers = append(man.Layers, d)
	}
	if !i.OmitHistory {
		doc.History = reconcile(i.History, len(layers), doc.Created)
	}
	for n := range doc.History {
		doc.History[n].Created = utc(doc.History[n].Created)
	}
	e := &Encoded{MediaType: types.manifest}
	if len(i.Annotations) > 0 {
		if f == define.FormatDocker {
			e.Lost = append(e.Lost, "annotations")
		} else {
			man.Annotations = i.Annotations
		}
	}
	if e.Config, err = marshal("config", written{doc, i.Cache}); err != nil {
		return nil, err
	}
	sum := digest.FromBytes(e.Config)
	e.ID = define.ImageID(sum.Encoded())
	man.Config = descriptor{MediaType: types.config, Digest: sum, Size: int64(len(e.Config))}
	if e.Manifest, err = marshal("manifest", man); err != nil {
		return nil, err
	}
	e.ManifestDigest = digest.FromBytes(e.Manifest)
	return e, nil
}

func (l Layer) describe(t *formatTypes) (descriptor, error) {
	for _, d := range []digest.Digest{l.DiffID, l.Digest} {
		if err := d.Validate(); err != nil {
			return descriptor{}, fmt.Errorf("digest %q: %v: %w", d, err, define.ErrInvalid)
		}
	}
	if l.Size < 0 {
		return descriptor{}, fmt.Errorf("size %d is negative: %w", l.Size, define.ErrInvalid)
	}
	media, err := t.layerType(l.MediaType)
	if err != nil {
		return descriptor{}, err
	}
	return descriptor{MediaType: media, Digest: l.Digest, Size: l.Size}, nil
}

// utc makes equal instants equal bytes: a zone or a monotonic reading would
// show in the config's digest.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// marshal leaves "<", ">" and "&" as they are, so that commands in the
// history can be read in the raw document.
func marshal(what string, v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding the image's %s: %v: %w", what, err, define.ErrInvalid)
	}
	if b.Len() > MaxDocument {
		return nil, fmt.Errorf("the image's %s has %d bytes, more than the %d that registries accept: shorten its history, labels or environment: %w",
			what, b.Len(), MaxDocument, define.ErrInvalid)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
