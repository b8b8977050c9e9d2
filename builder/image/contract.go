package image

import (
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// Config is the run-time configuration that instructions change.
type Config struct {
	v1.ImageConfig
	Healthcheck *Healthcheck
	OnBuild     []string
	Shell       []string
}

// Healthcheck is Docker's HEALTHCHECK; durations in nanoseconds in JSON.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// History is one line of an image's history; EmptyLayer says that it made no
// layer.
type History = v1.History

// Image is an image before it is encoded. Layers are kept apart: Encode is
// told of them.
type Image struct {
	Platform    define.Platform
	Created     *time.Time
	Author      string
	Config      Config
	History     []History
	Annotations map[string]string
}

// New returns an image of the platform with nothing in it.
func New(p define.Platform) *Image { panic("image") }

// Clone returns a deep copy.
func (i *Image) Clone() *Image { panic("image") }

// Env returns the value of a variable of the config.
func (i *Image) Env(name string) (string, bool) { panic("image") }

// SetEnv sets a variable, in place when it exists, else at the end.
func (i *Image) SetEnv(name, value string) { panic("image") }

// Layer is one layer as a manifest tells of it.
type Layer struct {
	DiffID digest.Digest
	// Digest, Size and MediaType describe the blob; in the store that is the
	// uncompressed stream. MediaType "" is the format's uncompressed type.
	Digest    digest.Digest
	Size      int64
	MediaType string
}

// Encoded is an image as bytes.
type Encoded struct {
	ID             define.ImageID
	Config         []byte
	Manifest       []byte
	ManifestDigest digest.Digest
	MediaType      string // of the manifest
	// Lost names what the format could not keep ("HEALTHCHECK", ...). Both
	// formats carry the fields in the config here, so it is usually empty.
	Lost []string
}

// Encode writes config and manifest, deterministically.
func (i *Image) Encode(f define.Format, layers []Layer) (*Encoded, error) { panic("image") }

// Stored is an image of the store.
type Stored struct {
	Image
	ID       define.ImageID
	Names    []string
	TopLayer define.LayerID
	DiffIDs  []digest.Digest
	// Digest of the manifest the store keeps.
	Digest    digest.Digest
	Manifest  []byte
	RawConfig []byte
	MediaType string
	Created   time.Time
}

// Load reads an image of the store by ID.
func Load(st *store.Store, id define.ImageID) (*Stored, error) { panic("image") }

// Record writes the encoded image to the store under names, in one step: it
// is complete or it is not there. Names move from the images that had them.
// An image of the same ID gets the names added.
func Record(st *store.Store, e *Encoded, top define.LayerID, names []string) error {
	panic("image")
}
