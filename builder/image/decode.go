package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

// Manifest is what a stored manifest says. An index has neither Config nor
// Layers.
type Manifest struct {
	MediaType    string
	Config       digest.Digest
	ConfigSize   int64
	Layers       []Layer // without DiffID
	Annotations  map[string]string
	Manifests    []v1.Descriptor // of an index
	ArtifactType string
}

// ParseManifest reads an OCI manifest or index or a Docker schema 2 manifest
// or list. Two readers must not understand one document differently (see
// CVE-2021-41190): a key given twice or in other case, a document that is
// both manifest and index, and a media type that its fields belie are
// refused, and so are malformed digests.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("manifest has %d bytes, more than %d: %w", len(data), MaxDocument, define.ErrInvalid)
	}
	keys, err := topLevelKeys(data)
	if err != nil {
		return nil, fmt.Errorf("manifest: %v: %w", err, define.ErrInvalid)
	}
	var raw struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        descriptor        `json:"config"`
		Layers        []descriptor      `json:"layers"`
		Manifests     []v1.Descriptor   `json:"manifests"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("manifest: %v: %w", err, define.ErrInvalid)
	}
	if raw.SchemaVersion != 2 {
		return nil, fmt.Errorf("manifest has schema version %d, and only 2 can be read: pull the image again: %w", raw.SchemaVersion, define.ErrUnsupported)
	}
	m := &Manifest{MediaType: raw.MediaType, Annotations: raw.Annotations, ArtifactType: raw.ArtifactType}
	if m.MediaType, err = checkKind(raw.MediaType, keys, raw.Config.MediaType); err != nil {
		return nil, err
	}
	if IsIndex(m.MediaType) {
		for _, d := range raw.Manifests {
			if err := d.Digest.Validate(); err != nil {
				return nil, fmt.Errorf("index names the manifest %q: %v: %w", d.Digest, err, define.ErrInvalid)
			}
		}
		m.Manifests = raw.Manifests
		return m, nil
	}
	m.Config, m.ConfigSize = raw.Config.Digest, raw.Config.Size
	if err := m.Config.Validate(); err != nil {
		return nil, fmt.Errorf("manifest names the config %q: %v: %w", m.Config, err, define.ErrInvalid)
	}
	for _, d := range raw.Layers {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("manifest names the layer %q: %v: %w", d.Digest, err, define.ErrInvalid)
		}
		m.Layers = append(m.Layers, Layer{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType})
	}
	return m, nil
}

// checkKind returns the media type of a document, which OCI allows to be
// absent, after comparing it with the fields that are there.
func checkKind(mediaType string, keys map[string]bool, configType string) (string, error) {
	index, single := keys["manifests"], keys["config"] || keys["layers"]
	switch {
	case index && single:
		return "", fmt.Errorf("manifest is both an image and an index: %w", define.ErrInvalid)
	case !index && !single:
		return "", fmt.Errorf("manifest has neither layers nor manifests: %w", define.ErrInvalid)
	case mediaType == "" && index:
		return v1.MediaTypeImageIndex, nil
	case mediaType == "" && configType == MediaTypeDockerConfig:
		return MediaTypeDockerManifest, nil
	case mediaType == "":
		return v1.MediaTypeImageManifest, nil
	case IsIndex(mediaType) && index:
		return mediaType, nil
	case (mediaType == v1.MediaTypeImageManifest || mediaType == MediaTypeDockerManifest) && single:
		return mediaType, nil
	}
	return "", fmt.Errorf("manifest says it is %q, which its fields are not: %w", mediaType, define.ErrInvalid)
}

var manifestKeys = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "annotations", "fsLayers", "history", "subject"}

// topLevelKeys returns the keys of a JSON object, refusing a key that comes
// twice and one that differs from a known key only in case, which
// encoding/json would take for it.
func topLevelKeys(data []byte) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	keys := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, errors.New("not a JSON object")
		}
		if keys[key] {
			return nil, fmt.Errorf("the key %q comes twice", key)
		}
		for _, known := range manifestKeys {
			if key != known && strings.EqualFold(key, known) {
				return nil, fmt.Errorf("the key %q resembles %q", key, known)
			}
		}
		keys[key] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text after the JSON object")
	}
	return keys, nil
}

// ParseConfig reads an image config of either format and returns it with the
// diff IDs of its layers. The history is made to fit the layers.
func ParseConfig(data []byte) (*Image, []digest.Digest, error) {
	if len(data) > MaxDocument {
		return nil, nil, fmt.Errorf("config has %d bytes, more than %d: %w", len(data), MaxDocument, define.ErrInvalid)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, nil, fmt.Errorf("config: %v: %w", err, define.ErrInvalid)
	}
	for _, d := range doc.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return nil, nil, fmt.Errorf("config names the layer %q: %v: %w", d, err, define.ErrInvalid)
		}
	}
	img := &Image{
		Platform: doc.Platform, Created: doc.Created, Author: doc.Author, Comment: doc.Comment, Config: doc.Config,
		History: reconcile(doc.History, len(doc.RootFS.DiffIDs), doc.Created),
	}
	return img, doc.RootFS.DiffIDs, nil
}
