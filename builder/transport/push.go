package transport

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
)

// PushOptions is how to write an image elsewhere.
type PushOptions struct {
	Format define.Format // "" keeps the image's
	// Compression is "gzip", "zstd" or "" for the destination's default:
	// gzip, but as they are in docker archives and directories.
	Compression      string
	CompressionLevel *int
	RemoveSignatures bool
	// Uncompressed writes layers and manifests byte by byte as the store has
	// them: registries get uncompressed layers.
	Uncompressed bool
	// AddCompression adds to a list, for each image, another one whose
	// layers are compressed so ("gzip", "zstd"); OCI's form only.
	AddCompression []string
	// ListOnly pushes a list of images without its images, which the
	// destination must have.
	ListOnly bool
	// Tags are further references, written after the first. One without a
	// transport is of the first's, and in a docker archive a further name of
	// the same image.
	Tags []string
	// Encryption encrypts layers; nil leaves them as they are.
	Encryption *Encryption
	// Signing adds a signature to each manifest; nil adds none.
	Signing *Signing
}

// Push writes the image to destination ("docker://host/name:tag",
// "oci:dir[:tag]", "oci-archive:file[:tag]", "docker-archive:file[:name]",
// "dir:dir", "containers-storage:name"; without a transport: docker://) and
// returns the digest of the manifest there. The ID of a list of images stands
// for the list and all its images, which the store must have. Archives, directories and the
// index of a layout are written beside their final name and renamed: a
// failure leaves what was there before.
func (c *Client) Push(ctx context.Context, id define.ImageID, destination string, o PushOptions) (digest.Digest, error) {
	if !isID(string(id)) || len(id) != 64 {
		return "", fmt.Errorf("image %s: not an image ID: %w", show(string(id)), define.ErrInvalid)
	}
	job, err := c.expand(id)
	if err != nil {
		return "", err
	}
	return c.push(ctx, job, destination, o)
}

// Members returns the images of a list of images, which the store must have;
// of a single image, itself.
func (c *Client) Members(id define.ImageID) ([]define.ImageID, error) {
	job, err := c.expand(id)
	return slices.DeleteFunc(job.ids, func(id define.ImageID) bool { return id == "" }), err
}

// expand makes the job of pushing an image, or all images of a list.
func (c *Client) expand(id define.ImageID) (pushJob, error) {
	img, err := image.Load(c.st, id)
	if err != nil {
		return pushJob{}, err
	}
	if !image.IsIndex(img.MediaType) {
		return pushJob{ids: []define.ImageID{id}}, nil
	}
	man, err := image.ParseManifest(img.Manifest)
	if err != nil {
		return pushJob{}, fmt.Errorf("image %s: %w", id.Short(), err)
	}
	job := pushJob{id: id, list: true, whole: img.Manifest, wholeType: img.MediaType, annotations: man.Annotations, entries: man.Manifests}
	if len(man.Manifests) == 0 {
		return pushJob{}, fmt.Errorf("list of images %s is empty: add images to it first: %w", id.Short(), define.ErrInvalid)
	}
	if job.extras, err = image.LoadExtras(c.st, id); err != nil {
		return pushJob{}, err
	}
	for _, d := range man.Manifests {
		if job.extras.Manifests[d.Digest] != nil {
			job.ids = append(job.ids, "")
			continue
		}
		recs, err := c.raw().ImagesByDigest(d.Digest)
		if err != nil {
			return pushJob{}, storeError(string(id), err)
		}
		at := slices.IndexFunc(recs, func(r *storage.Image) bool {
			return r.ID != string(id) && r.BigDataDigests[storage.ImageDigestBigDataKey] == d.Digest
		})
		if at < 0 {
			// A pulled image may have its list as the manifest, and its own beside.
			at = slices.IndexFunc(recs, func(r *storage.Image) bool { return r.ID != string(id) && r.TopLayer != "" })
		}
		if at < 0 {
			return pushJob{}, fmt.Errorf("list of images %s: its image %s: %w in the store", id.Short(), d.Digest, define.ErrNotFound)
		}
		job.ids = append(job.ids, define.ImageID(recs[at].ID))
	}
	return job, nil
}

// PushList writes images of the store together with a list of them (an OCI
// index, or a Docker manifest list in that format), as Push does, and returns
// the digest of the list. Annotations are the list's own. A docker archive
// cannot hold a list; containers-storage: records one, which podman's
// "manifest" commands know.
func (c *Client) PushList(ctx context.Context, ids []define.ImageID, annotations map[string]string, destination string, o PushOptions) (digest.Digest, error) {
	if len(ids) == 0 {
		return "", fmt.Errorf("list of images for %s is empty: %w", show(destination), define.ErrInvalid)
	}
	return c.push(ctx, pushJob{ids: ids, list: true, annotations: annotations}, destination, o)
}

// pushJob is what is pushed.
type pushJob struct {
	ids         []define.ImageID
	list        bool
	annotations map[string]string
	// extras are manifests of the list that are no images; in ids they are "".
	extras *image.Extras
	id     define.ImageID
	// Of a list of the store: the list as it is, and its entries, which
	// correspond to ids.
	whole     []byte
	wholeType string
	entries   []v1.Descriptor
}

func (c *Client) push(ctx context.Context, job pushJob, destination string, o PushOptions) (digest.Digest, error) {
	to, err := parseDestination(destination)
	if err != nil {
		return "", err
	}
	if job.list && to.kind == kindDockerArchive {
		return "", fmt.Errorf("%s: a docker archive cannot hold images of several platforms: use oci-archive: %w", to.name, define.ErrInvalid)
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
		return c.pushLocal(job, t)
	}
	sys, err := c.system(define.Platform{})
	if err != nil {
		return "", err
	}
	if t.kind == kindDocker {
		if sys, err = c.reach(ctx, sys, t.ref); err != nil {
			return "", err
		}
	}
	opts, err := pushOptions(sys, t, o)
	if err != nil {
		return "", err
	}
	format := formatFor(t, o)
	src, err := c.newSource(job, format)
	if err != nil {
		return "", err
	}
	if len(o.AddCompression) > 0 && (!job.list || format == define.FormatDocker) {
		return "", fmt.Errorf("%s: only lists of images in the oci format can have images in several compressions: %w", t.name, define.ErrInvalid)
	}
	if job.list {
		if err := src.makeList(format, job); err != nil {
			return "", err
		}
		opts.ImageListSelection = copy.CopyAllImages
		if o.ListOnly {
			opts.ImageListSelection = copy.CopySpecificImages
		}
	}
	action := "export"
	if t.kind == kindDocker {
		action = "push"
		// A level asks for a form of its own, which nobody knows by its digest.
		if o.CompressionLevel == nil && !o.Uncompressed && o.Encryption == nil && len(o.AddCompression) == 0 &&
			o.Compression != compression.ZstdChunked.Name() {
			c.findPresent(ctx, src, o.Compression, t.ref, opts.DestinationCtx)
		}
	}
	var man []byte
	write := func(ref types.ImageReference) error {
		man, err = c.copy(ctx, transfer{action: action, name: t.name, src: src, dst: ref, opts: opts})
		return err
	}
	if err := t.write(ctx, opts.DestinationCtx, write); err != nil {
		return "", err
	}
	if t.kind == kindDocker && !job.list && o.Encryption == nil {
		c.rememberPushed(src.images[0], man)
	}
	d, err := manifest.Digest(man)
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w", action, t.name, plain(err))
	}
	return d, nil
}

// formatFor is the format that the source must have, so that containers/image
// need not convert it.
func formatFor(t target, o PushOptions) define.Format {
	switch {
	case o.Format != "":
		return o.Format
	case t.kind == kindDockerArchive:
		return define.FormatDocker
	case o.Compression != "" && o.Compression != compression.Gzip.Name(), len(o.AddCompression) > 0, o.Encryption != nil:
		return define.FormatOCI
	}
	return ""
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
	if err := protect(opts, t, o); err != nil {
		return nil, err
	}
	if o.Uncompressed {
		if o.Compression != "" || o.CompressionLevel != nil || len(o.AddCompression) > 0 {
			return nil, fmt.Errorf("%s: layers are to be compressed and not to be: choose one: %w", t.name, define.ErrInvalid)
		}
		opts.PreserveDigests = true
	}
	if len(o.AddCompression) > 0 && o.Compression == "" {
		// Otherwise layers in the other compression, which were just written,
		// would be taken for the first images too.
		o.Compression = compression.Gzip.Name()
	}
	for _, name := range o.AddCompression {
		algo, err := compression.AlgorithmByName(name)
		if err != nil || name != compression.Gzip.Name() && name != compression.Zstd.Name() {
			return nil, fmt.Errorf("compression %q: want gzip or zstd: %w", name, define.ErrInvalid)
		}
		opts.EnsureCompressionVariantsExist = append(opts.EnsureCompressionVariantsExist, copy.OptionCompressionVariant{Algorithm: algo})
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

// pushLocal names the image in the store it is in, or records the list there.
func (c *Client) pushLocal(job pushJob, t target) (digest.Digest, error) {
	if job.list {
		src, err := c.newSource(job, "")
		if err != nil {
			return "", err
		}
		if err := src.makeList("", job); err != nil {
			return "", err
		}
		var images []*image.Stored
		for _, img := range src.images {
			if img.stored.ID != "" {
				images = append(images, img.stored)
			}
		}
		id, err := image.RecordIndex(c.st, src.index, images, []string{t.rest})
		if err == nil && !job.extras.Empty() {
			err = image.SaveExtras(c.st, id, job.extras)
		}
		return digest.FromBytes(src.index), err
	}
	img, err := image.Load(c.st, job.ids[0])
	if err != nil {
		return "", err
	}
	if err := c.raw().AddNames(string(img.ID), []string{t.rest}); err != nil {
		return "", fmt.Errorf("naming image %s %s: %w", img.ID.Short(), t.rest, plain(err))
	}
	return img.Digest, nil
}

// target is a parsed destination.
type target struct {
	kind, rest string
	name       string                  // as the user wrote it
	ref        types.ImageReference    // of a registry
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
		// The path is made when it is written to; the parser wants its
		// directory to exist.
		_, inner, named := strings.Cut(rest, ":")
		check := "/image"
		if named {
			check += ":" + inner
		}
		_, err = parseReference(kind, check, destination)
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
