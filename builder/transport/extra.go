package transport

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	imagestorage "go.podman.io/image/v5/storage"
	"golang.org/x/sys/unix"
)

// extraImage is the nth manifest of a list, which is no image of the store.
func (c *Client) extraImage(job pushJob, n int, f define.Format) (*sourceImage, error) {
	if f == define.FormatDocker {
		return nil, fmt.Errorf("list of images %s: only the oci format can hold artifacts: %w", job.id.Short(), define.ErrInvalid)
	}
	ref, err := imagestorage.Transport.NewStoreReference(c.raw(), nil, string(job.id))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w: %w", job.id.Short(), plain(err), define.ErrInvalid)
	}
	e := job.entries[n]
	data := job.extras.Manifests[e.Digest]
	return &sourceImage{stored: &image.Stored{Manifest: data, MediaType: e.MediaType, Digest: e.Digest},
		ref: ref, manifest: data, mediaType: e.MediaType, digest: e.Digest}, nil
}

func (s *source) extraBlob(d digest.Digest) (image.Blob, bool) {
	if s.extras == nil {
		return image.Blob{}, false
	}
	b, ok := s.extras.Blobs[d]
	return b, ok
}

// openExtra opens a blob; containers/image checks its digest.
func openExtra(b image.Blob) (io.ReadCloser, int64, error) {
	if b.File == "" {
		return io.NopCloser(bytes.NewReader(b.Data)), int64(len(b.Data)), nil
	}
	f, err := os.OpenFile(b.File, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("a file of an artifact: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != b.Size) {
		err = fmt.Errorf("%s is not the file that was added to the list: add it again: %w", b.File, define.ErrInvalid)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, b.Size, nil
}
