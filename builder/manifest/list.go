package manifest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Platform is a platform in a list. Features are Docker's, and reserved in
// the OCI image specification ("Image Index").
type Platform struct {
	v1.Platform
	Features []string `json:"features,omitempty"`
}

// Entry is one image of a list.
type Entry struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// document is an index or manifest list as it is written.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []Entry           `json:"manifests"`
	Subject       *v1.Descriptor    `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// List is a list of images under change. It is used by one goroutine.
type List struct {
	// ID is the record's in the store.
	ID    define.ImageID
	Names []string

	st        *store.Store
	doc       document
	instances map[digest.Digest]string
	beside    *image.Extras // nil until it is needed
}

// Create records an empty list under the names, which must be full. A name
// that an image has is define.ErrInUse.
func Create(st *store.Store, names ...string) (*List, error) {
	for _, n := range names {
		if have, err := st.Raw().Image(n); err == nil && slices.Contains(have.Names, n) {
			return nil, fmt.Errorf("list of images %s: image %s has this name: choose another, or replace it: %w",
				n, define.ImageID(have.ID).Short(), define.ErrInUse)
		}
	}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	l := &List{
		ID: define.ImageID(hex.EncodeToString(random[:])), Names: names, st: st,
		doc:       document{SchemaVersion: 2, MediaType: v1.MediaTypeImageIndex, Manifests: []Entry{}},
		instances: map[digest.Digest]string{},
	}
	data, where, err := l.encode()
	if err != nil {
		return nil, err
	}
	sum := digest.FromBytes(data)
	_, err = st.Raw().CreateImage(string(l.ID), names, "", "{}", &storage.ImageOptions{Digest: sum, BigData: []storage.ImageBigDataOption{
		{Key: storage.ImageDigestBigDataKey, Data: data, Digest: sum},
		{Key: image.InstancesKey, Data: where, Digest: digest.FromBytes(where)},
	}})
	if errors.Is(err, storage.ErrDuplicateName) {
		return nil, fmt.Errorf("list of images %s: an image has this name: choose another, or replace it: %w", strings.Join(names, ", "), define.ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("recording the list of images %s: %w", strings.Join(names, ", "), err)
	}
	return l, nil
}

// Open reads a list. An image that is none is define.ErrInvalid.
func Open(st *store.Store, id define.ImageID) (*List, error) {
	stored, err := image.Load(st, id)
	if err != nil {
		return nil, err
	}
	if !image.IsIndex(stored.MediaType) {
		return nil, fmt.Errorf("image %s is a single image, not a list: %w", label(stored), define.ErrInvalid)
	}
	l := &List{ID: id, Names: stored.Names, st: st, instances: map[digest.Digest]string{}}
	if err := json.Unmarshal(stored.Manifest, &l.doc); err != nil {
		return nil, fmt.Errorf("list of images %s: %v: %w", label(stored), err, define.ErrInvalid)
	}
	if where, err := st.Raw().ImageBigData(string(id), image.InstancesKey); err == nil {
		// What is lost here is found by digest.
		_ = json.Unmarshal(where, &l.instances)
	}
	if l.instances == nil {
		l.instances = map[digest.Digest]string{}
	}
	return l, nil
}

func label(s *image.Stored) string {
	if len(s.Names) > 0 {
		return s.Names[0]
	}
	return s.ID.Short()
}

// Label is a name of the list, or the start of its ID.
func (l *List) Label() string {
	if len(l.Names) > 0 {
		return l.Names[0]
	}
	return l.ID.Short()
}

// MediaType is the list's.
func (l *List) MediaType() string { return l.doc.MediaType }

// Entries returns the list's images. Changes to them do not reach the list.
func (l *List) Entries() []Entry { return slices.Clone(l.doc.Manifests) }

// Add adds an image of the store, or replaces its entry, and returns the
// entry for the caller to change. A list of images is define.ErrInvalid.
func (l *List) Add(id define.ImageID) (*Entry, error) {
	img, err := image.Load(l.st, id)
	if err != nil {
		return nil, err
	}
	if image.IsIndex(img.MediaType) {
		return nil, fmt.Errorf("image %s is itself a list of images: add its images: %w", label(img), define.ErrInvalid)
	}
	d := img.Descriptor()
	e := Entry{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: &Platform{Platform: *d.Platform}}
	l.instances[d.Digest] = image.StoreReference(l.st, id)
	if at := l.index(d.Digest); at >= 0 {
		l.doc.Manifests[at] = e
		return &l.doc.Manifests[at], nil
	}
	l.doc.Manifests = append(l.doc.Manifests, e)
	return &l.doc.Manifests[len(l.doc.Manifests)-1], nil
}

func (l *List) index(d digest.Digest) int {
	return slices.IndexFunc(l.doc.Manifests, func(e Entry) bool { return e.Digest == d })
}

// Entry returns the entry of a digest for the caller to change.
func (l *List) Entry(d digest.Digest) (*Entry, error) {
	if at := l.index(d); at >= 0 {
		return &l.doc.Manifests[at], nil
	}
	var have []string
	for _, e := range l.doc.Manifests {
		have = append(have, e.Digest.String())
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("list of images %s: manifest %s: %w: the list is empty", l.Label(), d, define.ErrNotFound)
	}
	return nil, fmt.Errorf("list of images %s: manifest %s: %w: the list has %s", l.Label(), d, define.ErrNotFound, strings.Join(have, ", "))
}

// Remove takes an image off the list; the image stays in the store.
func (l *List) Remove(d digest.Digest) error {
	if _, err := l.Entry(d); err != nil {
		return err
	}
	if extras, err := l.extras(); err != nil {
		return err
	} else if extras.Manifests[d] == nil {
		l.beside = nil // nothing to write
	} else {
		delete(extras.Manifests, d)
	}
	l.doc.Manifests = slices.Delete(l.doc.Manifests, l.index(d), l.index(d)+1)
	delete(l.instances, d)
	return nil
}

// Annotate sets annotations of the list itself.
func (l *List) Annotate(annotations map[string]string) {
	if l.doc.Annotations == nil {
		l.doc.Annotations = map[string]string{}
	}
	maps.Copy(l.doc.Annotations, annotations)
}

// SetSubject makes the list refer to another manifest (OCI image
// specification 1.1, "Image Index", subject).
func (l *List) SetSubject(d v1.Descriptor) {
	l.doc.Subject = &v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Bytes is the list as it is written.
func (l *List) Bytes() ([]byte, error) {
	data, _, err := l.encode()
	return data, err
}

// encode writes the list and the places of its images. What only OCI's form
// has makes it one.
func (l *List) encode() (data, where []byte, err error) {
	oci := len(l.doc.Annotations) > 0 || l.doc.Subject != nil || l.doc.ArtifactType != ""
	for _, e := range l.doc.Manifests {
		oci = oci || len(e.Annotations) > 0 || e.ArtifactType != ""
	}
	if oci {
		l.doc.MediaType = v1.MediaTypeImageIndex
	}
	if l.doc.Manifests == nil {
		l.doc.Manifests = []Entry{}
	}
	if data, err = json.Marshal(l.doc); err != nil {
		return nil, nil, err
	}
	if len(data) > image.MaxDocument {
		return nil, nil, fmt.Errorf("list of images %s would have %d bytes, more than %d: %w", l.Label(), len(data), image.MaxDocument, define.ErrInvalid)
	}
	// Under the empty digest buildah notes the list itself.
	l.instances[""] = string(l.ID)
	where, err = json.Marshal(l.instances)
	return data, where, err
}
