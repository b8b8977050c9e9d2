package transport

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/storage"
)

// Local is an image that the store has.
type Local struct {
	ID define.ImageID
	// Name is the full name it was found under, "" when found by ID.
	Name string
}

// FindLocal finds an image of the store by name (short, full, with tag or
// digest) or by ID or an unambiguous start of one (at least 3 digits). A
// short name is looked for under localhost, then as registries.conf says,
// then on docker.io; a name goes before the start of an ID. The platform,
// when not zero, must match; of a list of images, the one of the platform
// (the host's when zero) is found. Not found is define.ErrNotFound, with the
// nearest names in the text.
func (c *Client) FindLocal(name string, p define.Platform) (Local, error) {
	l, _, err := c.find(name, wanted{Platform: p})
	return l, err
}

// FindEntry is FindLocal for what a name itself stands for: a list of images
// is found as such, by whoever renames, removes or pushes it.
func (c *Client) FindEntry(name string) (Local, error) {
	l, _, err := c.find(name, wanted{entry: true})
	return l, err
}

// wanted is what a search accepts.
type wanted struct {
	define.Platform
	// entry stops at a list of images, whatever the platform.
	entry bool
}

func (w wanted) anyPlatform() bool { return w.OS == "" && w.Architecture == "" }

// otherPlatform is the error for an image that is there for another platform.
type otherPlatform struct {
	local      Local
	have, want string
	name       string
	usable     bool // by a machine of the wanted platform
}

func (e *otherPlatform) Error() string { return e.sentence() + ": " + define.ErrNotFound.Error() }

func (e *otherPlatform) sentence() string {
	return fmt.Sprintf("image %s in the store is for %s, not %s: pull or build it for that platform, or ask for --platform %s",
		show(e.name), e.have, e.want, e.have)
}

func (e *otherPlatform) Unwrap() error { return define.ErrNotFound }

// find is FindLocal that also returns the store's record.
func (c *Client) find(unsafeName string, p wanted) (Local, *storage.Image, error) {
	name := unsafeName
	if kind, rest := splitKind(name); kind == kindStorage {
		name = rest
		if _, after, ok := strings.Cut(name, "]"); ok && strings.HasPrefix(name, "[") {
			name = after
		}
	} else if kind == kindDocker {
		name = dockerName(rest)
	}
	if name == "" {
		return Local{}, nil, fmt.Errorf("image name is empty: %w", define.ErrInvalid)
	}
	if id, ok := strings.CutPrefix(name, "sha256:"); ok && isID(id) {
		return c.findID(name, id, p)
	}
	if isID(name) && len(name) == 64 {
		return c.findID(name, name, p)
	}
	var wrong *otherPlatform
	found, rec, err := c.findNamed(name, p)
	if err == nil || !errors.Is(err, define.ErrNotFound) || errors.As(err, &wrong) {
		return found, rec, err
	}
	if isID(name) {
		if found, rec, err := c.findID(name, name, p); err == nil || !errors.Is(err, define.ErrNotFound) {
			return found, rec, err
		}
	}
	return Local{}, nil, c.notFound(unsafeName)
}

// dockerName completes what stands after "docker://" as docker does.
func dockerName(rest string) string {
	if !isShort(rest) {
		return rest
	}
	if !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return defaultRegistry + "/" + rest
}

// findNamed tries the full names that a name may mean. The registries'
// configuration is not read when localhost has the image: parsing it takes
// longer than all else here.
func (c *Client) findNamed(name string, p wanted) (Local, *storage.Image, error) {
	if !isShort(name) {
		named, err := parseNamed(name, "")
		if err != nil {
			return Local{}, nil, err
		}
		return c.findReference(name, reference.TagNameOnly(named), p)
	}
	var wrong error
	attempt := func(named reference.Named) (Local, *storage.Image, bool, error) {
		l, rec, err := c.findReference(name, named, p)
		if err != nil && errors.Is(err, define.ErrNotFound) {
			if wrong == nil && errors.As(err, new(*otherPlatform)) {
				wrong = err
			}
			return l, nil, false, nil
		}
		return l, rec, err == nil, err
	}
	named, err := parseNamed(name, "localhost")
	if err != nil {
		return Local{}, nil, err
	}
	if l, rec, ok, err := attempt(reference.TagNameOnly(named)); ok || err != nil {
		return l, rec, err
	}
	sys, err := c.system(define.Platform{})
	if err != nil {
		return Local{}, nil, err
	}
	m, err := c.resolve(sys, name)
	if err != nil && !errors.Is(err, define.ErrNotFound) {
		return Local{}, nil, err
	}
	all := m.names
	if hub, err := parseNamed(dockerName(name), ""); err == nil {
		all = append(all, reference.TagNameOnly(hub))
	}
	for _, named := range all {
		if l, rec, ok, err := attempt(named); ok || err != nil {
			return l, rec, err
		}
	}
	if wrong != nil {
		return Local{}, nil, wrong
	}
	return Local{}, nil, define.ErrNotFound
}

// findReference looks for one full name.
func (c *Client) findReference(asked string, named reference.Named, p wanted) (Local, *storage.Image, error) {
	if digested, ok := named.(reference.Digested); ok {
		return c.findDigest(asked, named, digested.Digest(), p)
	}
	full := named.String()
	rec, err := c.raw().Image(full)
	if err != nil || !slices.Contains(rec.Names, full) {
		return Local{}, nil, storeError(full, err)
	}
	return c.match(asked, full, rec, p)
}

// findDigest looks for name@digest. An image counts when it was pulled from
// the same repository, whatever tag it has there.
func (c *Client) findDigest(asked string, named reference.Named, d digest.Digest, p wanted) (Local, *storage.Image, error) {
	recs, err := c.raw().ImagesByDigest(d)
	if err != nil {
		return Local{}, nil, storeError(asked, err)
	}
	var wrong error = define.ErrNotFound
	for _, rec := range recs {
		i := slices.IndexFunc(rec.Names, func(n string) bool {
			have, err := reference.ParseNormalizedNamed(n)
			return err == nil && have.Name() == named.Name()
		})
		if i < 0 {
			continue
		}
		l, rec, err := c.match(asked, named.String(), rec, p)
		if err == nil {
			return l, rec, nil
		}
		wrong = err
	}
	return Local{}, nil, wrong
}

// findID looks for an ID or the start of one.
func (c *Client) findID(asked, id string, p wanted) (Local, *storage.Image, error) {
	rec, err := c.raw().Image(id)
	if err == nil && strings.HasPrefix(rec.ID, id) {
		return c.match(asked, "", rec, p)
	}
	if err != nil && !errors.Is(err, storage.ErrImageUnknown) {
		return Local{}, nil, storeError(asked, err)
	}
	// The store does not tell "none" from "several".
	images, err := c.raw().Images()
	if err != nil {
		return Local{}, nil, storeError(asked, err)
	}
	n := 0
	for i := range images {
		if strings.HasPrefix(images[i].ID, id) {
			n++
		}
	}
	if n > 1 {
		return Local{}, nil, fmt.Errorf("image ID %s begins %d images: write more digits: %w", show(asked), n, define.ErrInvalid)
	}
	return Local{}, nil, fmt.Errorf("image ID %s: %w in the store", show(asked), define.ErrNotFound)
}

// match compares an image with the platform, and goes from a list to its
// image of that platform.
func (c *Client) match(asked, name string, rec *storage.Image, p wanted) (Local, *storage.Image, error) {
	l := Local{ID: define.ImageID(rec.ID), Name: name}
	if p.entry || p.anyPlatform() && rec.TopLayer != "" {
		return l, rec, nil
	}
	img, err := image.Load(c.st, l.ID)
	if err != nil {
		return Local{}, nil, err
	}
	if image.IsIndex(img.MediaType) {
		return c.matchIndex(asked, name, img, p.Platform)
	}
	if p.anyPlatform() || same(p.Platform, img.Platform) {
		return l, rec, nil
	}
	if name != "" {
		if other := c.sibling(rec, p.Platform); other != nil {
			return Local{ID: define.ImageID(other.ID), Name: name}, other, nil
		}
	}
	return Local{}, nil, &otherPlatform{
		local: l, name: asked, usable: covers(p.Platform, img.Platform),
		have: define.FormatPlatform(define.NormalizePlatform(img.Platform)), want: define.FormatPlatform(p.Platform),
	}
}

// sibling finds the image of the platform that came from the same list as
// rec. The two share a name, which the one pulled last has; both keep the
// list. So a build for several platforms need not ask the registry in turns.
func (c *Client) sibling(rec *storage.Image, p define.Platform) *storage.Image {
	for _, d := range rec.Digests {
		if d == rec.BigDataDigests[storage.ImageDigestBigDataKey] {
			continue
		}
		recs, err := c.raw().ImagesByDigest(d)
		if err != nil {
			continue
		}
		for _, other := range recs {
			if other.ID == rec.ID || other.TopLayer == "" {
				continue
			}
			img, err := image.Load(c.st, define.ImageID(other.ID))
			if err == nil && !image.IsIndex(img.MediaType) && same(p, img.Platform) {
				return other
			}
		}
	}
	return nil
}

func (c *Client) matchIndex(asked, name string, list *image.Stored, p define.Platform) (Local, *storage.Image, error) {
	if p.OS == "" && p.Architecture == "" {
		p = define.HostPlatform()
	}
	man, err := image.ParseManifest(list.Manifest)
	if err != nil {
		return Local{}, nil, fmt.Errorf("image %s: %w", show(asked), err)
	}
	for _, d := range man.Manifests {
		if d.Platform == nil || !same(p, *d.Platform) {
			continue
		}
		recs, err := c.raw().ImagesByDigest(d.Digest)
		if err != nil {
			return Local{}, nil, storeError(asked, err)
		}
		for _, rec := range recs {
			if define.ImageID(rec.ID) != list.ID {
				return Local{ID: define.ImageID(rec.ID), Name: name}, rec, nil
			}
		}
	}
	return Local{}, nil, fmt.Errorf("list of images %s has none for %s in the store: %w", show(asked), define.FormatPlatform(p), define.ErrNotFound)
}

// same reports whether an image is of the platform. Images of old tools that
// say nothing of theirs are of every platform; a variant that one side leaves
// open is the other's.
func same(want, have define.Platform) bool {
	want, have = define.NormalizePlatform(want), define.NormalizePlatform(have)
	return covers(want, have) && (have.Variant == want.Variant || have.Variant == "" || want.Variant == "")
}

// covers reports whether a machine of the platform want runs an image of the
// platform have: variants count upward, what runs arm/v7 runs arm/v6.
func covers(want, have define.Platform) bool {
	want, have = define.NormalizePlatform(want), define.NormalizePlatform(have)
	if have.OS != "" && want.OS != "" && have.OS != want.OS {
		return false
	}
	if have.Architecture != "" && want.Architecture != "" && have.Architecture != want.Architecture {
		return false
	}
	return have.Variant == "" || want.Variant == "" || have.Variant <= want.Variant
}

func storeError(name string, err error) error {
	if err == nil || errors.Is(err, storage.ErrImageUnknown) {
		return fmt.Errorf("image %s: %w in the store", show(name), define.ErrNotFound)
	}
	return fmt.Errorf("looking for image %s in the store: %w", show(name), plain(err))
}
