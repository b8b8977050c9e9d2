package image

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

// Convert rewrites a manifest in the other format. The config stays as it is,
// byte for byte, because both formats read the same one: the image keeps its
// ID and its HEALTHCHECK. A manifest that is in the format already comes back
// unchanged. A layer without a type in the format is define.ErrInvalid.
func Convert(data []byte, f define.Format) (converted []byte, mediaType string, err error) {
	types, err := typesOf(f)
	if err != nil {
		return nil, "", err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, "", err
	}
	if m.MediaType == types.manifest {
		return data, m.MediaType, nil
	}
	if IsIndex(m.MediaType) {
		return nil, "", fmt.Errorf("manifest is a list: %w", define.ErrInvalid)
	}
	out := manifest{
		SchemaVersion: 2, MediaType: types.manifest,
		Config: descriptor{MediaType: types.config, Digest: m.Config, Size: m.ConfigSize},
		Layers: make([]descriptor, 0, len(m.Layers)),
	}
	if f != define.FormatDocker {
		out.Annotations = m.Annotations
	}
	for n, l := range m.Layers {
		media, err := types.layerType(l.MediaType)
		if err != nil {
			return nil, "", fmt.Errorf("layer %d of %d: %w", n+1, len(m.Layers), err)
		}
		out.Layers = append(out.Layers, descriptor{MediaType: media, Digest: l.Digest, Size: l.Size})
	}
	converted, err = marshal("manifest", out)
	return converted, types.manifest, err
}

// EncodeIndex writes a list of images: an OCI index, or a Docker manifest
// list, which drops the annotations of the list and its entries. The
// descriptors need media type, digest, size and platform.
func EncodeIndex(f define.Format, manifests []v1.Descriptor, annotations map[string]string) (data []byte, mediaType string, err error) {
	if _, err := typesOf(f); err != nil {
		return nil, "", err
	}
	index := struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []v1.Descriptor   `json:"manifests"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}{2, v1.MediaTypeImageIndex, make([]v1.Descriptor, 0, len(manifests)), annotations}
	if f == define.FormatDocker {
		index.MediaType, index.Annotations = MediaTypeDockerManifestList, nil
	}
	for n, d := range manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, "", fmt.Errorf("image %d of %d of the list: digest %q: %v: %w", n+1, len(manifests), d.Digest, err, define.ErrInvalid)
		}
		if f == define.FormatDocker {
			d = v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
		}
		index.Manifests = append(index.Manifests, d)
	}
	data, err = marshal("index", index)
	return data, index.MediaType, err
}

// Descriptor is the image's entry in a list.
func (s *Stored) Descriptor() v1.Descriptor {
	p := define.NormalizePlatform(s.Platform)
	return v1.Descriptor{MediaType: s.MediaType, Digest: digest.FromBytes(s.Manifest), Size: int64(len(s.Manifest)), Platform: &p}
}
