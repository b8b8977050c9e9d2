package transport

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// Options is how to reach others; the zero value is the user's configuration.
type Options struct {
	Authfile        string
	CertDir         string
	Creds           string // user[:password]
	TLSVerify       *bool  // nil: as registries.conf says, verified by default
	SignaturePolicy string // path of a policy.json
	Retry           int    // attempts after the first; negative: none; 0: 3
	RetryDelay      time.Duration
	// BigFilesTemporaryDir is where blobs wait; "": TMPDIR, else /var/tmp.
	BigFilesTemporaryDir string
}

// Client moves images. It is safe for concurrent use.
type Client struct{ _ int }

// New returns a client for the store; events go to l, which may be nil.
func New(st *store.Store, o Options, l define.Listener) *Client { panic("transport") }

// Local is an image that the store has.
type Local struct {
	ID define.ImageID
	// Name is the full name it was found under, "" when found by ID.
	Name string
}

// FindLocal finds an image of the store by name (short, full, with tag or
// digest) or by ID or an unambiguous start of one (at least 3 digits). The
// platform, when not zero, must match. Not found is define.ErrNotFound, with
// the nearest names in the text.
func (c *Client) FindLocal(name string, p define.Platform) (Local, error) { panic("transport") }

// Pull makes sure that the store has what name means, as the policy says,
// and returns it. name may carry a transport ("oci:dir:tag",
// "docker-archive:file.tar", ...).
func (c *Client) Pull(ctx context.Context, name string, p define.Platform, policy define.PullPolicy) (Local, error) {
	panic("transport")
}

// PushOptions is how to write an image elsewhere.
type PushOptions struct {
	Format define.Format // "" keeps the image's
	// Compression is "gzip", "zstd" or "" for the destination's default.
	Compression      string
	CompressionLevel *int
	RemoveSignatures bool
	// Tags are further references, written after the first.
	Tags []string
}

// Push writes the image to destination ("docker://host/name:tag", "oci:...",
// "oci-archive:...", "docker-archive:...", "dir:...",
// "containers-storage:..."; without a transport: docker://) and returns the
// digest of the manifest there. Archives are written beside their final name
// and renamed.
func (c *Client) Push(ctx context.Context, id define.ImageID, destination string, o PushOptions) (digest.Digest, error) {
	panic("transport")
}

// NormalizeTag turns -t's value into a full name: localhost/ is put before a
// name without a registry, :latest after one without a tag.
func NormalizeTag(name string) (string, error) { panic("transport") }

// IsTransport reports whether a name starts with a transport that Push knows.
func IsTransport(name string) bool { panic("transport") }

// Login verifies and stores credentials; Logout removes them.
func (c *Client) Login(ctx context.Context, l LoginOptions) error { panic("transport") }

// LoginOptions are login's flags.
type LoginOptions struct {
	Registry, Username, Password string
	GetLogin                     bool
	Out                          io.Writer
}

// Logout forgets credentials of one registry, or of all.
func (c *Client) Logout(ctx context.Context, registry string, all bool) error { panic("transport") }
