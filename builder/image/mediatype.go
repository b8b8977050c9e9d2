package image

import (
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

// Docker's media types (image manifest version 2, schema 2); the OCI ones are
// in image-spec.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// compression is how a layer blob is packed.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

var layerCompression = map[string]compression{
	"":                             plain,
	v1.MediaTypeImageLayer:         plain,
	v1.MediaTypeImageLayerGzip:     gzipped,
	v1.MediaTypeImageLayerZstd:     zstandard,
	MediaTypeDockerLayer:           plain,
	MediaTypeDockerLayerGzip:       gzipped,
	MediaTypeDockerLayer + ".zstd": zstandard, // not official; c/image reads it
}

// formatTypes are the media types of one format; layer is indexed by
// compression.
type formatTypes struct {
	name             define.Format
	manifest, config string
	layer            [3]string
}

var (
	ociTypes = formatTypes{
		name: define.FormatOCI, manifest: v1.MediaTypeImageManifest, config: v1.MediaTypeImageConfig,
		layer: [3]string{v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd},
	}
	dockerTypes = formatTypes{
		name: define.FormatDocker, manifest: MediaTypeDockerManifest, config: MediaTypeDockerConfig,
		layer: [3]string{MediaTypeDockerLayer, MediaTypeDockerLayerGzip},
	}
)

func typesOf(f define.Format) (*formatTypes, error) {
	switch f {
	case "", define.FormatOCI:
		return &ociTypes, nil
	case define.FormatDocker:
		return &dockerTypes, nil
	}
	return nil, fmt.Errorf("format %q: want oci or docker: %w", f, define.ErrInvalid)
}

// layerType finds the format's word for a layer's media type.
func (t *formatTypes) layerType(mediaType string) (string, error) {
	c, ok := layerCompression[mediaType]
	if !ok {
		return "", fmt.Errorf("media type %q is not one of a layer: %w", mediaType, define.ErrInvalid)
	}
	if t.layer[c] == "" {
		return "", fmt.Errorf("the %s format has no media type for zstd: choose gzip or the oci format: %w", t.name, define.ErrInvalid)
	}
	return t.layer[c], nil
}

// IsIndex reports whether a manifest of this media type is a list of others.
func IsIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == MediaTypeDockerManifestList
}

// LayerTypes returns the media types of uncompressed and of gzip layers that
// go with a manifest's media type.
func LayerTypes(manifestType string) (uncompressed, gzip string) {
	t := &ociTypes
	if manifestType == dockerTypes.manifest {
		t = &dockerTypes
	}
	return t.layer[plain], t.layer[gzipped]
}
