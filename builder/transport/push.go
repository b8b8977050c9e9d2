package transport

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/compression"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
)

// PushOptions is how to write an image elsewhere.
type PushOptions struct {
	Format define.Format // "" keeps the image's
	// Compression is "gzip", "zstd" or "" for the destination's default:
	// gzip, but as they are in docker archives and directories.
	Compression      string
	CompressionLevel *int
	RemoveSignatures bool
	// Tags are further references, written after the first. One without a
	// transport is of the first's, and in a docker archive a further name of
	// the same image.
	Tags []string
}

// Push writes the image to destination ("docker://host/name:tag",
// "oci:dir[:tag]", "oci-archive:file[:tag]", "docker-archive:file[:name]",
// "dir:dir", "containers-storage:name"; without a transport: docker://) and
// returns the digest of the manifest there. Archives, directories and the
// index of a layout are written beside their final name and renamed: a
// failure leaves what was there before.
func (c *Client) Push(ctx context.Context, id define.ImageID, destination string, o PushOptions) (digest.Digest, error) {
	src, err := imagestorage.Transport.NewStoreReference(c.raw(), nil, string(id))
	if err != nil {
		return "", fmt.Errorf("image %s: %w: %w", show(string(id)), plain(err), define.ErrInvalid)
	}
	return c.push(ctx, pushJob{src: src, id: id}, destination, o)
}

// pushJob is what is pushed.
type pushJob struct {
	src types.ImageReference
	id  define.ImageID
	all bool // a list with all its images
}

func (c *Client) push(ctx context.Context, job pushJob, destination string, o PushOptions) (digest.Digest, error) {
	to, err := parseDestination(destination)
	if err != nil {
		return "", err
	}
	var further []target
	for _, tag := range o.Tags {
		if to.kind == kindDockerArchive && !IsTransport(tag) {
			if err := to.addName(tag); err != nil {
				return "", err
			}
			continue
		}
		t, err := to.sibling(tag)
		if err != nil {
			return "", err
		}
		further = append(further, t)
	}
	var first digest.Digest
	for n, t := range append([]target{to}, further...) {
		d, err := c.pushTo(ctx, job, t, o)
		if err != nil {
			return "", err
		}
		if n == 0 {
			first = d
		}
	}
	return first, nil
}

func (c *Client) pushTo(ctx context.Context, job pushJob, t target, o PushOptions) (digest.Digest, error) {
	if t.kind == kindStorage {
		return c.tagLocal(job, t)
	}
	sys, err := c.system(define.Platform{})
	if err != nil {
		return "", err
	}
	opts, err := pushOptions(sys, t, o)
	if err != nil {
		return "", err
	}
	if job.all {
		opts.ImageListSelection = copy.CopyAllImages
	}
	action := "export"
	if t.kind == kindDocker {
		action = "push"
	}
	var man []byte
	write := func(ref types.ImageReference) error {
		man, err = c.copy(ctx, transfer{action: action, name: t.name, src: job.src, dst: ref, opts: opts})
		return err
	}
	if err := t.write(ctx, opts.DestinationCtx, write); err != nil {
		return "", err
	}
	d, err := manifest.Digest(man)
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w", action, t.name, plain(err))
	}
	return d, nil
}

// pushOptions translates the options; sys becomes the source's.
func pushOptions(sys *types.SystemContext, t target, o PushOptions) (*copy.Options, error) {
	dst := *sys
	opts := &copy.Options{SourceCtx: sys, DestinationCtx: &dst, RemoveSignatures: o.RemoveSignatures || t.kind == kindOCI || t.kind == kindOCIArchive || t.kind == kindDockerArchive}
	switch o.Format {
	case "":
	case define.FormatOCI:
		opts.ForceManifestMIMEType = v1.MediaTypeImageManifest
	case define.FormatDocker:
		opts.ForceManifestMIMEType = image.MediaTypeDockerManifest
	default:
		return nil, fmt.Errorf("format %q: want oci or docker: %w", o.Format, define.ErrInvalid)
	}
	if t.kind == kindDockerArchive {
		if o.Format == define.FormatOCI {
			return nil, fmt.Errorf("%s: a docker archive cannot hold the oci format: use oci-archive: %w", t.name, define.ErrInvalid)
		}
		opts.ForceManifestMIMEType = image.MediaTypeDockerManifest
		dst.DockerArchiveAdditionalTags = t.names
	}
	if o.Compression != "" || o.CompressionLevel != nil {
		if err := compress(opts, &dst, t, o); err != nil {
			return nil, err
		}
	}
	return opts, nil
}

func compress(opts *copy.Options, dst *types.SystemContext, t target, o PushOptions) error {
	algorithm := o.Compression
	if algorithm == "" {
		algorithm = compression.Gzip.Name()
	}
	if !slices.Contains([]string{compression.Gzip.Name(), compression.Zstd.Name(), compression.ZstdChunked.Name()}, algorithm) {
		return fmt.Errorf("compression %q: want gzip or zstd: %w", o.Compression, define.ErrInvalid)
	}
	if t.kind == kindDockerArchive && o.Compression != "" {
		return fmt.Errorf("%s: layers of a docker archive are never compressed: %w", t.name, define.ErrInvalid)
	}
	if algorithm != compression.Gzip.Name() && opts.ForceManifestMIMEType == image.MediaTypeDockerManifest {
		return fmt.Errorf("compression %s: the docker format has no media type for it: use the oci format: %w", algorithm, define.ErrInvalid)
	}
	algo, err := compression.AlgorithmByName(algorithm)
	if err != nil {
		return fmt.Errorf("compression %q: %v: %w", algorithm, err, define.ErrInvalid)
	}
	if level := o.CompressionLevel; level != nil {
		low, high := 1, 9
		if algorithm != compression.Gzip.Name() {
			high = 20
		}
		if *level < low || *level > high {
			return fmt.Errorf("compression level %d of %s: want %d to %d: %w", *level, algorithm, low, high, define.ErrInvalid)
		}
	}
	dst.CompressionFormat, dst.CompressionLevel = &algo, o.CompressionLevel
	dst.DirForceCompress = t.kind == kindDir
	opts.ForceCompressionFormat = o.Compression != ""
	return nil
}

// tagLocal names the image in the store it is in.
func (c *Client) tagLocal(job pushJob, t target) (digest.Digest, error) {
	img, err := image.Load(c.st, job.id)
	if err != nil {
		return "", err
	}
	if err := c.raw().AddNames(string(job.id), []string{t.rest}); err != nil {
		return "", fmt.Errorf("naming image %s %s: %w", job.id.Short(), t.rest, plain(err))
	}
	return img.Digest, nil
}

// target is a parsed destination.
type target struct {
	kind, rest string
	name       string // as the user wrote it
	ref        types.ImageReference
	names      []reference.NamedTagged // further ones, in a docker archive
}

func parseDestination(destination string) (target, error) {
	kind, rest := splitKind(destination)
	if slices.Contains(foreign, kind) {
		return target{}, fmt.Errorf("destination %s: the transport %s: %w; use docker://, oci:, oci-archive:, docker-archive: or dir:", show(destination), kind, define.ErrUnsupported)
	}
	t := target{kind: kind, rest: rest, name: destination}
	var err error
	switch kind {
	case "", kindDocker:
		t.kind = kindDocker
		named, err := parseNamed(dockerName(rest), "")
		if err != nil {
			return target{}, err
		}
		t.ref, err = parseReference(kindDocker, "//"+named.String(), destination)
		return t, err
	case kindStorage:
		t.rest, err = NormalizeTag(rest)
	default:
		t.ref, err = parseReference(kind, rest, destination)
	}
	return t, err
}

// sibling is a further destination of the same transport, unless it has its
// own.
func (t target) sibling(tag string) (target, error) {
	if IsTransport(tag) || t.kind == kindDocker {
		return parseDestination(tag)
	}
	if t.kind == kindStorage {
		return parseDestination(kindStorage + ":" + tag)
	}
	return target{}, fmt.Errorf("tag %s: a further name in %s must be written in full, such as %s:PATH:TAG: %w", show(tag), t.name, t.kind, define.ErrInvalid)
}

func (t *target) addName(tag string) error {
	full, err := NormalizeTag(tag)
	if err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return fmt.Errorf("tag %s: %v: %w", show(tag), err, define.ErrInvalid)
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return fmt.Errorf("tag %s: it names no tag: %w", show(tag), define.ErrInvalid)
	}
	t.names = append(t.names, tagged)
	return nil
}
