package manifest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
)

// DefaultArtifactType is the type of artifacts that nobody gave one.
const DefaultArtifactType = "application/vnd.unknown.artifact.v1"

// Artifact is files as one manifest of a list (OCI image specification 1.1,
// "Guidelines for Artifact Usage").
type Artifact struct {
	// Type is the artifact type; "": DefaultArtifactType.
	Type string
	// Config is the content of the config, of ConfigType; "": the empty one,
	// of the empty type.
	Config     []byte
	ConfigType string
	// LayerType is the files' media type; "": found by their first bytes.
	LayerType string
	// NoTitles leaves the files' names out.
	NoTitles    bool
	Annotations map[string]string
	Subject     *v1.Descriptor
	// Files are read now, for their digests, and once more when the list is
	// pushed: the store keeps their paths.
	Files []string
}

// AddArtifact adds an artifact and returns its entry for the caller to change.
func (l *List) AddArtifact(a Artifact) (*Entry, error) {
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: a.Type, Config: v1.DescriptorEmptyJSON, Annotations: a.Annotations, Subject: a.Subject, Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	if m.ArtifactType == "" {
		m.ArtifactType = DefaultArtifactType
	}
	blobs := map[digest.Digest]image.Blob{}
	config := []byte("{}")
	if a.Config != nil {
		config = a.Config
		m.Config = v1.Descriptor{MediaType: v1.MediaTypeEmptyJSON, Digest: digest.FromBytes(config), Size: int64(len(config))}
	}
	m.Config.Data = nil
	if a.ConfigType != "" {
		m.Config.MediaType = a.ConfigType
	}
	blobs[m.Config.Digest] = image.Blob{Data: config, Size: int64(len(config))}
	for _, name := range a.Files {
		d, err := describe(name, a)
		if err != nil {
			return nil, err
		}
		full, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
		blobs[d.Digest] = image.Blob{File: full, Size: d.Size}
	}
	if len(m.Layers) == 0 {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeEmptyJSON, Digest: v1.DescriptorEmptyJSON.Digest, Size: v1.DescriptorEmptyJSON.Size})
		blobs[v1.DescriptorEmptyJSON.Digest] = image.Blob{Data: []byte("{}"), Size: 2}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	extras, err := l.extras()
	if err != nil {
		return nil, err
	}
	sum := extras.Add(data, blobs)
	e := Entry{MediaType: m.MediaType, Digest: sum, Size: int64(len(data)), ArtifactType: m.ArtifactType}
	if at := l.index(sum); at >= 0 {
		l.doc.Manifests[at] = e
		return &l.doc.Manifests[at], nil
	}
	l.doc.Manifests = append(l.doc.Manifests, e)
	return &l.doc.Manifests[len(l.doc.Manifests)-1], nil
}

// describe reads a file.
func describe(name string, a Artifact) (v1.Descriptor, error) {
	var d v1.Descriptor
	f, err := os.Open(name)
	if err != nil {
		return d, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return d, err
	}
	if !info.Mode().IsRegular() {
		return d, fmt.Errorf("%s is not a regular file: %w", name, define.ErrInvalid)
	}
	head := make([]byte, 512) // as much as DetectContentType looks at
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return d, err
	}
	h := sha256.New()
	h.Write(head[:n])
	rest, err := io.Copy(h, f)
	if err != nil {
		return d, err
	}
	d = v1.Descriptor{MediaType: a.LayerType, Digest: digest.NewDigest(digest.SHA256, h), Size: int64(n) + rest}
	if d.MediaType == "" {
		d.MediaType = http.DetectContentType(head[:n])
	}
	if !a.NoTitles {
		d.Annotations = map[string]string{v1.AnnotationTitle: filepath.Base(name)}
	}
	return d, nil
}

// extras are what the list holds beside images, read once.
func (l *List) extras() (*image.Extras, error) {
	if l.beside == nil {
		e, err := image.LoadExtras(l.st, l.ID)
		if err != nil {
			return nil, err
		}
		l.beside = e
	}
	return l.beside, nil
}
