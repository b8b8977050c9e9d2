package transport

import (
	"context"
	"fmt"
	"strings"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	"go.podman.io/image/v5/docker/reference"
	ociarchive "go.podman.io/image/v5/oci/archive"
	"go.podman.io/image/v5/oci/layout"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
)

// transports are named here one by one: importing containers/image's
// alltransports would link those that nobody uses a builder for.
var transports = map[string]types.ImageTransport{
	kindDocker:        docker.Transport,
	kindOCI:           layout.Transport,
	kindOCIArchive:    ociarchive.Transport,
	kindDockerArchive: dockerarchive.Transport,
	kindDir:           directory.Transport,
}

func parseReference(kind, rest, name string) (types.ImageReference, error) {
	ref, err := transports[kind].ParseReference(rest)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w: %w", show(name), plain(err), define.ErrInvalid)
	}
	return ref, nil
}

// pullFile reads an image from a directory or an archive.
func (c *Client) pullFile(ctx context.Context, kind, rest, name string, p define.Platform) (Local, error) {
	sys, err := c.system(p)
	if err != nil {
		return Local{}, err
	}
	src, err := parseReference(kind, rest, name)
	if err != nil {
		return Local{}, err
	}
	// The image is stored by ID first, which needs no name, and named then.
	img, err := src.NewImage(ctx, sys)
	if err != nil {
		return Local{}, c.explainCopy(ctx, transfer{action: "pull", name: name, src: src}, "", err)
	}
	config := img.ConfigInfo().Digest
	if err := img.Close(); err != nil {
		return Local{}, fmt.Errorf("pull of %s: %w", name, plain(err))
	}
	if err := config.Validate(); err != nil {
		return Local{}, fmt.Errorf("pull of %s: it has no config: %w", name, define.ErrUnsupported)
	}
	dst, err := imagestorage.Transport.NewStoreReference(c.raw(), nil, config.Encoded())
	if err != nil {
		return Local{}, fmt.Errorf("pull of %s: %w: %w", name, plain(err), define.ErrUnsupported)
	}
	id, err := c.pullTo(ctx, sys, name, src, dst)
	if err != nil {
		return Local{}, err
	}
	full := c.nameIn(kind, rest, src, sys)
	if full != "" {
		if err := c.raw().AddNames(string(id), []string{full}); err != nil {
			return Local{}, fmt.Errorf("pull of %s: naming it %s: %w", name, full, plain(err))
		}
	}
	c.warnPlatform(name, id, p)
	return Local{ID: id, Name: full}, nil
}

// nameIn is the full name that a file gives its image, or "". In an OCI
// layout a name may be a mere tag ("latest"), which names nothing elsewhere.
func (c *Client) nameIn(kind, rest string, src types.ImageReference, sys *types.SystemContext) string {
	var unsafeName string
	switch kind {
	case kindOCI:
		_, unsafeName, _ = strings.Cut(rest, ":")
		if d, err := layout.LoadManifestDescriptor(src); err == nil {
			unsafeName = annotated(d.Annotations, unsafeName)
		}
	case kindOCIArchive:
		_, unsafeName, _ = strings.Cut(rest, ":")
		if d, err := ociarchive.LoadManifestDescriptorWithContext(sys, src); err == nil {
			unsafeName = annotated(d.Annotations, unsafeName)
		}
	case kindDockerArchive:
		path, _, _ := strings.Cut(rest, ":")
		unsafeName = c.archiveName(path, src, sys)
	}
	if !strings.ContainsAny(unsafeName, ":/") || strings.Contains(unsafeName, "@") {
		return ""
	}
	full, err := NormalizeTag(unsafeName)
	if err != nil {
		return ""
	}
	return full
}

func annotated(annotations map[string]string, name string) string {
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		if v := annotations[key]; v != "" {
			return v
		}
	}
	return name
}

// archiveName is the image's name in a docker-archive: the one asked for, or
// else its first.
func (c *Client) archiveName(path string, src types.ImageReference, sys *types.SystemContext) string {
	if named := src.DockerReference(); named != nil {
		return named.String()
	}
	r, err := dockerarchive.NewReader(sys, path)
	if err != nil {
		return ""
	}
	defer r.Close()
	lists, err := r.List()
	if err != nil || len(lists) == 0 || len(lists[0]) == 0 {
		return ""
	}
	if tagged, ok := lists[0][0].DockerReference().(reference.NamedTagged); ok {
		return tagged.String()
	}
	return ""
}
