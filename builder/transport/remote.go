package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
)

// Manifest reads what name stands for elsewhere: the bytes and the media type
// of an image's manifest or of a list of images. Nothing is stored. The name
// may carry a transport, as Pull's.
func (c *Client) Manifest(ctx context.Context, name string) (data []byte, mediaType string, err error) {
	kind, rest := splitKind(name)
	sys, err := c.system(define.Platform{})
	if err != nil {
		return nil, "", err
	}
	var refs []types.ImageReference
	switch {
	case kind == kindStorage:
		return nil, "", fmt.Errorf("image %s: is of the store: leave out the transport: %w", show(name), define.ErrInvalid)
	case slices.Contains(foreign, kind):
		return nil, "", fmt.Errorf("image %s: the transport %s: %w", show(name), kind, define.ErrUnsupported)
	case kind == "" || kind == kindDocker:
		if refs, err = c.remoteReferences(sys, kind, name, rest); err != nil {
			return nil, "", err
		}
	default:
		ref, err := parseReference(kind, rest, name)
		if err != nil {
			return nil, "", err
		}
		refs = append(refs, ref)
	}
	for _, ref := range refs {
		if data, mediaType, err = c.readManifest(ctx, sys, ref, name); err == nil || ctx.Err() != nil {
			break
		}
	}
	return data, mediaType, err
}

// remoteReferences are the full names in registries that a name may mean.
func (c *Client) remoteReferences(sys *types.SystemContext, kind, name, rest string) ([]types.ImageReference, error) {
	if kind == kindDocker {
		name = dockerName(rest)
	}
	if isLocalOnly(name) {
		return nil, c.notFound(name)
	}
	m, err := c.resolve(sys, name)
	if err == nil {
		err = oneCandidate(sys, name, m.names)
	}
	if err != nil {
		return nil, err
	}
	var refs []types.ImageReference
	for _, named := range m.names {
		ref, err := remoteReference(named)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// remoteReference is a name in a registry. Registries know tag or digest; with
// both, the digest is what counts.
func remoteReference(named reference.Named) (types.ImageReference, error) {
	if digested, ok := named.(reference.Digested); ok {
		canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", show(named.String()), plain(err))
		}
		named = canonical
	}
	ref, err := docker.NewReference(named)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w: %w", show(named.String()), plain(err), define.ErrInvalid)
	}
	return ref, nil
}

func (c *Client) readManifest(ctx context.Context, sys *types.SystemContext, ref types.ImageReference, name string) (data []byte, mediaType string, err error) {
	if sys, err = c.reach(ctx, sys, ref); err != nil {
		return nil, "", err
	}
	type result struct {
		data      []byte
		mediaType string
	}
	var got result
	err = c.retry(ctx, "asking for "+name, func() error {
		src, err := ref.NewImageSource(ctx, sys)
		if err != nil {
			return err
		}
		got.data, got.mediaType, err = src.GetManifest(ctx, nil)
		return errors.Join(err, src.Close())
	})
	if err != nil {
		return nil, "", c.explainCopy(ctx, transfer{action: "pull", name: name, src: ref}, hostOf(ref), err)
	}
	m, err := image.ParseManifest(got.data)
	if err != nil {
		return nil, "", fmt.Errorf("image %s: %w", show(name), err)
	}
	return got.data, m.MediaType, nil
}

// Platforms returns the platforms that an image exists for, as the store
// knows, or else the registry: those of its list, or its own.
func (c *Client) Platforms(ctx context.Context, name string, policy define.PullPolicy) ([]define.Platform, error) {
	kind, _ := splitKind(name)
	if policy != define.PullAlways && (kind == "" || kind == kindDocker || kind == kindStorage) {
		_, rec, err := c.find(name, wanted{entry: true})
		if err == nil {
			return c.localPlatforms(rec)
		}
		if !errors.Is(err, define.ErrNotFound) || policy == define.PullNever || kind == kindStorage {
			return nil, err
		}
	}
	data, mediaType, err := c.Manifest(ctx, name)
	if err != nil {
		return nil, err
	}
	if image.IsIndex(mediaType) {
		return indexPlatforms(data)
	}
	// Only the config of a single image tells.
	l, err := c.Pull(ctx, name, define.Platform{}, policy)
	if err != nil {
		return nil, err
	}
	img, err := image.Load(c.st, l.ID)
	if err != nil {
		return nil, err
	}
	return []define.Platform{define.NormalizePlatform(img.Platform)}, nil
}

func (c *Client) localPlatforms(rec *storage.Image) ([]define.Platform, error) {
	for _, key := range rec.BigDataNames {
		if !strings.HasPrefix(key, storage.ImageDigestManifestBigDataNamePrefix) || rec.BigDataSizes[key] > image.MaxDocument {
			continue
		}
		data, err := c.raw().ImageBigData(rec.ID, key)
		if err != nil {
			return nil, storeError(rec.ID, err)
		}
		if m, err := image.ParseManifest(data); err == nil && image.IsIndex(m.MediaType) {
			return indexPlatforms(data)
		}
	}
	img, err := image.Load(c.st, define.ImageID(rec.ID))
	if err != nil {
		return nil, err
	}
	return []define.Platform{define.NormalizePlatform(img.Platform)}, nil
}

// indexPlatforms are the platforms of a list, each once. Attestations, which
// buildx puts there for the platform unknown, are none.
func indexPlatforms(data []byte) ([]define.Platform, error) {
	m, err := image.ParseManifest(data)
	if err != nil {
		return nil, err
	}
	var all []define.Platform
	for _, d := range m.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" || d.Platform.OS == "" || d.Platform.Architecture == "" {
			continue
		}
		p := define.NormalizePlatform(*d.Platform)
		if !slices.ContainsFunc(all, func(q define.Platform) bool { return define.FormatPlatform(p) == define.FormatPlatform(q) }) {
			all = append(all, p)
		}
	}
	return all, nil
}

// PullAll fetches every image of a list, or the image when there is no list.
// Images of a list that the registry marks as something else (attestations)
// are left out.
func (c *Client) PullAll(ctx context.Context, name string) ([]Local, error) {
	data, mediaType, err := c.Manifest(ctx, name)
	if err != nil {
		return nil, err
	}
	if !image.IsIndex(mediaType) {
		l, err := c.Pull(ctx, name, define.Platform{}, define.PullMissing)
		return []Local{l}, err
	}
	m, err := image.ParseManifest(data)
	if err != nil {
		return nil, err
	}
	kind, rest := splitKind(name)
	var all []Local
	for _, d := range m.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" {
			continue
		}
		one, p := name, *d.Platform
		if kind == "" || kind == kindDocker {
			if kind == kindDocker {
				one = dockerName(rest)
			}
			one, p = withoutTag(one)+"@"+d.Digest.String(), define.Platform{}
		}
		l, err := c.Pull(ctx, one, p, define.PullMissing)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// withoutTag takes tag and digest off a name.
func withoutTag(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name = name[:i]
	}
	return name
}

// PullTags fetches all images of a repository, which is named without a tag.
func (c *Client) PullTags(ctx context.Context, name string, p define.Platform, policy define.PullPolicy) ([]Local, error) {
	kind, rest := splitKind(name)
	if kind != "" && kind != kindDocker {
		return nil, fmt.Errorf("image %s: only registries have all tags of an image: %w", show(name), define.ErrInvalid)
	}
	if kind == kindDocker {
		name = dockerName(rest)
	}
	if withoutTag(name) != name {
		return nil, fmt.Errorf("image %s: all tags were asked for: leave out its tag: %w", show(name), define.ErrInvalid)
	}
	sys, err := c.system(define.Platform{})
	if err != nil {
		return nil, err
	}
	refs, err := c.remoteReferences(sys, "", name, "")
	if err != nil {
		return nil, err
	}
	if sys, err = c.reach(ctx, sys, refs[0]); err != nil {
		return nil, err
	}
	var tags []string
	err = c.retry(ctx, "asking for the tags of "+name, func() (err error) {
		tags, err = docker.GetRepositoryTags(ctx, sys, refs[0])
		return err
	})
	if err != nil {
		return nil, c.explainCopy(ctx, transfer{action: "pull", name: name, src: refs[0]}, hostOf(refs[0]), err)
	}
	var all []Local
	for _, tag := range tags {
		tagged, err := reference.WithTag(reference.TrimNamed(refs[0].DockerReference()), tag)
		if err != nil {
			return all, fmt.Errorf("image %s: the registry names the tag %s: %w", show(name), show(tag), plain(err))
		}
		l, err := c.Pull(ctx, tagged.String(), p, policy)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}
