package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/pkg/compression"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"golang.org/x/sync/semaphore"
)

// source reads images of the store for a push. It stands before
// containers/image's own source of the store and differs in three ways: it
// shows the manifest in the format wanted (containers/image would rewrite the
// config and drop HEALTHCHECK, ONBUILD and SHELL), it offers layers as the
// compressed blobs that the destination has already, and it can show several
// images as a list.
type source struct {
	types.ImageReference // of the list, or of the only image

	index     []byte // nil for a single image
	indexType string
	images    []*sourceImage
	extras    *image.Extras
	present   map[digest.Digest]types.BlobInfo // by diff ID
	presentIn string                           // how those are compressed
	open      func(define.LayerID) (io.ReadCloser, error)
}

// sourceImage is one image of a source.
type sourceImage struct {
	stored    *image.Stored
	ref       types.ImageReference
	manifest  []byte
	mediaType string
	digest    digest.Digest
	layers    []*storage.Layer // the bottom one first
}

// newSource loads the images. A format of "" keeps theirs.
func (c *Client) newSource(job pushJob, f define.Format) (*source, error) {
	s := &source{extras: job.extras, open: c.o.Layer}
	for n, id := range job.ids {
		if id == "" {
			img, err := c.extraImage(job, n, f)
			if err != nil {
				return nil, err
			}
			s.images = append(s.images, img)
			continue
		}
		ref, err := imagestorage.Transport.NewStoreReference(c.raw(), nil, string(id))
		if err != nil {
			return nil, fmt.Errorf("image %s: %w: %w", show(string(id)), plain(err), define.ErrInvalid)
		}
		stored, err := image.Load(c.st, id)
		if err != nil {
			return nil, err
		}
		img := &sourceImage{stored: stored, layers: c.chain(stored), ref: ref, manifest: stored.Manifest, mediaType: stored.MediaType}
		if f != "" {
			if img.manifest, img.mediaType, err = image.Convert(stored.Manifest, f); err != nil {
				return nil, fmt.Errorf("image %s as %s: %w", id.Short(), f, err)
			}
		}
		img.digest = digest.FromBytes(img.manifest)
		s.images = append(s.images, img)
	}
	s.ImageReference = s.images[0].ref
	return s, nil
}

// makeList makes the source a list of its images. A list of the store stays
// as it is when nothing of it has to change; otherwise its entries keep their
// platforms and annotations.
func (s *source) makeList(f define.Format, job pushJob) error {
	same := job.whole != nil && (f == "" || job.wholeType == listType(f))
	if f == "" && (job.wholeType == image.MediaTypeDockerManifestList || job.whole == nil && s.images[0].mediaType == image.MediaTypeDockerManifest) {
		f = define.FormatDocker
	}
	var entries []v1.Descriptor
	for n, img := range s.images {
		if image.IsIndex(img.mediaType) {
			return fmt.Errorf("image %s is itself a list of images: %w", img.stored.ID.Short(), define.ErrInvalid)
		}
		d := img.stored.Descriptor()
		if n < len(job.entries) {
			same = same && job.entries[n].Digest == img.digest
			d = job.entries[n]
		}
		d.MediaType, d.Digest, d.Size = img.mediaType, img.digest, int64(len(img.manifest))
		entries = append(entries, d)
	}
	if same {
		s.index, s.indexType = job.whole, job.wholeType
		return nil
	}
	var err error
	s.index, s.indexType, err = image.EncodeIndex(f, entries, job.annotations)
	return err
}

func listType(f define.Format) string {
	if f == define.FormatDocker {
		return image.MediaTypeDockerManifestList
	}
	return v1.MediaTypeImageIndex
}

// NewImageSource opens the images.
func (s *source) NewImageSource(ctx context.Context, sys *types.SystemContext) (types.ImageSource, error) {
	o := &openSource{source: s, blobs: map[digest.Digest]storedBlob{}, room: semaphore.NewWeighted(roomForLayers)}
	for _, img := range s.images {
		if img.stored.ID == "" {
			o.inner = append(o.inner, nil)
			continue
		}
		inner, err := img.ref.NewImageSource(ctx, sys)
		if err != nil {
			o.Close()
			return nil, err
		}
		o.inner = append(o.inner, inner)
	}
	return o, nil
}

// openSource is a source being read. c/image calls it from several
// goroutines.
type openSource struct {
	*source
	inner []types.ImageSource // parallel to source.images

	room  *semaphore.Weighted
	mu    sync.Mutex
	blobs map[digest.Digest]storedBlob
}

// storedBlob is where a layer is.
type storedBlob struct {
	image types.ImageSource
	layer define.LayerID // "" where it is not known
	size  int64
}

// Reference is what the signature policy looks at.
func (o *openSource) Reference() types.ImageReference { return o.source.ImageReference }

func (o *openSource) Close() error {
	var first error
	for _, in := range o.inner {
		if in == nil {
			continue
		}
		if err := in.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// find returns the image of a digest; nil means the only one.
func (o *openSource) find(instance *digest.Digest) (int, error) {
	if instance == nil {
		if o.index != nil {
			return 0, fmt.Errorf("a list of images has no layers of its own")
		}
		return 0, nil
	}
	for n, img := range o.images {
		if img.digest == *instance {
			return n, nil
		}
	}
	return 0, fmt.Errorf("the store has no image with the manifest %s of the list", *instance)
}

func (o *openSource) GetManifest(_ context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance == nil && o.index != nil {
		return o.index, o.indexType, nil
	}
	n, err := o.find(instance)
	if err != nil {
		return nil, "", err
	}
	return o.images[n].manifest, o.images[n].mediaType, nil
}

func (o *openSource) HasThreadSafeGetBlob() bool { return true }

func (o *openSource) GetBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	for _, img := range o.images {
		if digest.NewDigestFromEncoded(digest.SHA256, string(img.stored.ID)) == info.Digest {
			return io.NopCloser(bytes.NewReader(img.stored.RawConfig)), int64(len(img.stored.RawConfig)), nil
		}
	}
	o.mu.Lock()
	b := o.blobs[info.Digest]
	o.mu.Unlock()
	if b.image != nil {
		return o.openLayer(ctx, b, info, cache)
	}
	if b, ok := o.extraBlob(info.Digest); ok {
		return openExtra(b)
	}
	if o.inner[0] == nil {
		return nil, 0, fmt.Errorf("the store does not have the blob %s of the list", info.Digest)
	}
	return o.inner[0].GetBlob(ctx, info, cache)
}

// A layer that is compressed and sent takes some 10 MiB for the blocks under
// way. Small ones go side by side, since what they cost is round trips; a large
// one alone keeps two processors busy, with reading and hashing, compressing,
// and sending.
const (
	roomForLayers = 6 // as many as containers/image copies at once
	largeLayer    = 256 << 10
)

// openLayer opens a layer of the store when there is room for it.
func (o *openSource) openLayer(ctx context.Context, b storedBlob, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	room := int64(1)
	if b.size < 0 || b.size >= largeLayer {
		room = max(1, roomForLayers/int64(max(1, runtime.GOMAXPROCS(0)/2)))
	}
	if err := o.room.Acquire(ctx, room); err != nil {
		return nil, 0, err
	}
	r, size, err := o.layerStream(ctx, b, info, cache)
	if err != nil {
		o.room.Release(room)
		return nil, 0, err
	}
	return &roomReader{ReadCloser: r, leave: sync.OnceFunc(func() { o.room.Release(room) })}, size, nil
}

func (o *openSource) layerStream(ctx context.Context, b storedBlob, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if o.open != nil && b.layer != "" {
		r, err := o.open(b.layer)
		if err == nil || !errors.Is(err, define.ErrUnsupported) {
			return r, b.size, err
		}
	}
	return b.image.GetBlob(ctx, info, cache)
}

// roomReader makes room when it is closed.
type roomReader struct {
	io.ReadCloser
	leave func()
}

func (r *roomReader) Close() error {
	defer r.leave()
	return r.ReadCloser.Close()
}

// GetSignatures returns the signatures of a manifest that is as it was
// signed.
func (o *openSource) GetSignatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	if instance == nil && o.index != nil {
		return nil, nil
	}
	n, err := o.find(instance)
	if err != nil {
		return nil, err
	}
	if img := o.images[n]; img.stored.ID == "" || !bytes.Equal(img.manifest, img.stored.Manifest) {
		return nil, nil
	}
	if instance != nil {
		instance = nil // each image of the store has its own
	}
	return o.inner[n].GetSignatures(ctx, instance)
}

// LayerInfosForCopy describes the layers as the store has them, uncompressed,
// or as the destination has them.
func (o *openSource) LayerInfosForCopy(ctx context.Context, instance *digest.Digest) ([]types.BlobInfo, error) {
	n, err := o.find(instance)
	if err != nil {
		return nil, err
	}
	if o.inner[n] == nil {
		return nil, nil // as the manifest has them
	}
	infos, err := o.inner[n].LayerInfosForCopy(ctx, nil)
	if err != nil {
		return nil, err
	}
	plainType, gzipType := image.LayerTypes(o.images[n].mediaType)
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range infos {
		b := storedBlob{image: o.inner[n], size: infos[i].Size}
		if i < len(o.images[n].layers) && o.images[n].layers[i].UncompressedDigest == infos[i].Digest {
			b.layer = define.LayerID(o.images[n].layers[i].ID)
		}
		o.blobs[infos[i].Digest] = b
		infos[i].MediaType = plainType
		if there, ok := o.present[infos[i].Digest]; ok {
			there.MediaType = gzipType
			if o.presentIn == compression.Zstd.Name() {
				there.MediaType = v1.MediaTypeImageLayerZstd
			}
			infos[i] = there
		}
	}
	return infos, nil
}
