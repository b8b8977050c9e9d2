package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/copy"
	ciimage "go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
)

// Remote is an image of a registry of which nothing has been stored. The
// policy was asked about it, and its config has the digest that its manifest
// says.
type Remote struct {
	Name     string
	Manifest *image.Manifest
	Config   []byte

	ref types.ImageReference
	sys *types.SystemContext
}

// Look reads manifest and config of an image of a registry
// ("docker://host/name:tag"); of a list, those of the image for the platform.
// An image that is not there is define.ErrNotFound.
func (c *Client) Look(ctx context.Context, name string, p define.Platform) (*Remote, error) {
	kind, rest := splitKind(name)
	if kind != kindDocker {
		return nil, fmt.Errorf("image %s: is not of a registry: write docker://: %w", show(name), define.ErrInvalid)
	}
	sys, err := c.system(p)
	if err != nil {
		return nil, err
	}
	refs, err := c.remoteReferences(sys, kind, name, rest)
	if err != nil {
		return nil, err
	}
	ref := refs[0] // a name with its registry means one image
	if sys, err = c.reach(ctx, sys, ref); err != nil {
		return nil, err
	}
	r := &Remote{Name: name, ref: ref, sys: sys}
	var malformed error
	err = c.retry(ctx, "asking for "+name, func() error {
		src, err := ref.NewImageSource(ctx, sys)
		if err != nil {
			return err
		}
		malformed, err = c.look(ctx, r, src)
		return errors.Join(err, src.Close())
	})
	if err != nil {
		return nil, c.explainCopy(ctx, transfer{action: "pull", name: name, src: ref}, hostOf(ref), err)
	}
	if malformed != nil {
		return nil, fmt.Errorf("image %s: %w: %w", show(name), plain(malformed), define.ErrInvalid)
	}
	return r, nil
}

// look reads into r. What is there but is no image is malformed: asking again
// would not help.
func (c *Client) look(ctx context.Context, r *Remote, src types.ImageSource) (malformed, err error) {
	one := ciimage.UnparsedInstance(src, nil)
	data, mediaType, err := one.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if manifest.MIMETypeIsMultiImage(mediaType) {
		list, err := manifest.ListFromBlob(data, mediaType)
		if err != nil {
			return err, nil
		}
		which, err := list.ChooseInstance(r.sys)
		if err != nil {
			return nil, err
		}
		one = ciimage.UnparsedInstance(src, &which)
		if data, _, err = one.Manifest(ctx); err != nil {
			return nil, err
		}
	}
	policy, err := c.policy(r.sys)
	if err != nil {
		return nil, err
	}
	defer policy.Destroy()
	if _, err := policy.IsRunningImageAllowed(ctx, one); err != nil {
		return nil, err
	}
	m, err := image.ParseManifest(data)
	if err == nil && image.IsIndex(m.MediaType) {
		err = errors.New("a list of lists")
	}
	if err != nil {
		return err, nil
	}
	img, err := ciimage.FromUnparsedImage(ctx, r.sys, one)
	if err != nil {
		return err, nil
	}
	r.Manifest = m
	r.Config, err = img.ConfigBlob(ctx)
	return nil, err
}

// PullPart makes an image of the store that ends with a layer of r: enc is its
// manifest and config, whose last layer is a blob of r, and those below are
// r's or the store's, which are named by their diff IDs. Layers that the store
// has are not fetched, and each that is has the diff ID that enc's config
// says. The image has no name.
func (c *Client) PullPart(ctx context.Context, r *Remote, enc *image.Encoded) error {
	done, err := c.turn(ctx, string(enc.ID))
	if err != nil {
		return err
	}
	defer done()
	dst, err := imagestorage.Transport.NewStoreReference(c.raw(), nil, string(enc.ID))
	if err != nil {
		return fmt.Errorf("image %s: %w", show(r.Name), plain(err))
	}
	opts := &copy.Options{SourceCtx: r.sys, DestinationCtx: r.sys, RemoveSignatures: true}
	if c.o.Decryption != nil {
		opts.OciDecryptConfig = c.o.Decryption.config
	}
	m, err := image.ParseManifest(enc.Manifest)
	if err != nil || len(m.Layers) == 0 {
		return fmt.Errorf("part of image %s: want an image with layers: %w", show(r.Name), define.ErrInvalid)
	}
	_, err = c.copy(ctx, transfer{action: "pull", name: r.Name, src: &part{r.ref, enc}, dst: dst, opts: opts, allowed: true,
		only: m.Layers[len(m.Layers)-1].Digest})
	return err
}

// part is a remote image with another manifest and config.
type part struct {
	types.ImageReference
	enc *image.Encoded
}

// NewImageSource opens the remote image.
func (p *part) NewImageSource(ctx context.Context, sys *types.SystemContext) (types.ImageSource, error) {
	src, err := p.ImageReference.NewImageSource(ctx, sys)
	if err != nil {
		return nil, err
	}
	return &partSource{src, p}, nil
}

type partSource struct {
	types.ImageSource
	part *part
}

// Reference returns the part, not what it is of.
func (s *partSource) Reference() types.ImageReference { return s.part }

// GetManifest returns the part's own.
func (s *partSource) GetManifest(context.Context, *digest.Digest) ([]byte, string, error) {
	return s.part.enc.Manifest, s.part.enc.MediaType, nil
}

// GetSignatures returns none: those of the remote image are not of the part.
func (s *partSource) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil
}

// LayerInfosForCopy leaves the layers as the manifest has them.
func (s *partSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}

// GetBlob returns the part's config, or a layer of the remote image.
func (s *partSource) GetBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if config := s.part.enc.Config; info.Digest == digest.FromBytes(config) {
		return io.NopCloser(bytes.NewReader(config)), int64(len(config)), nil
	}
	return s.ImageSource.GetBlob(ctx, info, cache)
}
