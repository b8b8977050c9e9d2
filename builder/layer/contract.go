package layer

import (
	"context"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// Info is what is known of a layer once it is in the store.
type Info struct {
	ID      define.LayerID
	DiffID  digest.Digest // of the uncompressed tar stream
	Size    int64         // of the uncompressed tar stream, bytes
	ChainID digest.Digest // OCI image specification, "Layer ChainID"
}

// Layer is a link of a chain: in the store, or frozen and on its way there.
// A nil *Layer is the empty root. Layers are valid until their Space closes.
type Layer struct{ _ int }

// Parent is the layer below; nil for the bottom one.
func (l *Layer) Parent() *Layer { panic("layer") }

// Wait returns once the layer is in the store, or with the reason why it
// cannot be.
func (l *Layer) Wait(ctx context.Context) (Info, error) { panic("layer") }

// Space is where one build makes its layers: a workspace of the store, a
// background committer and the descriptors in use. It is safe for concurrent
// use by the stages of a build.
type Space struct{ _ int }

// NewSpace makes an empty space; it costs nothing until it is used.
func NewSpace(st *store.Store) *Space { panic("layer") }

// Open returns the chain that ends at a layer of the store. Nothing is pinned
// until a Working or View is made on it.
func (s *Space) Open(ctx context.Context, id define.LayerID) (*Layer, error) { panic("layer") }

// BeginOptions describes a writable root.
type BeginOptions struct {
	// Bottom is a directory shown below the whole chain that never becomes
	// part of the layer: mount points that a step needs. May be nil; ignored
	// (Working.HasBottom false) where the driver cannot do it.
	Bottom *os.File
}

// Begin makes a writable root on top of parent (nil: an empty one).
func (s *Space) Begin(ctx context.Context, parent *Layer, o BeginOptions) (*Working, error) {
	panic("layer")
}

// Working is a writable root. Exactly one of Freeze and Discard ends it.
type Working struct{ _ int }

// Root is a descriptor of the merged root: a detached mount that can be moved
// into a step's mount namespace (move_mount(2)) and that names can be
// resolved in.
func (w *Working) Root() *os.File { panic("layer") }

// Upper is a descriptor of the overlay's upper directory; nil where the
// driver has none.
func (w *Working) Upper() *os.File { panic("layer") }

// HasBottom reports whether BeginOptions.Bottom is in effect.
func (w *Working) HasBottom() bool { panic("layer") }

// FreezeOptions says what the layer's tar stream holds.
type FreezeOptions struct {
	// Timestamp sets every modification time (buildah's --timestamp).
	Timestamp *time.Time
	// Clamp lowers modification times later than it (SOURCE_DATE_EPOCH).
	Clamp *time.Time
	// Omit lists paths that are left out if they are empty (mount points
	// that were made for the step where there is no Bottom).
	Omit []string
}

// Freeze ends the writing, unmounts, and returns the new layer while its
// commit goes on in the background. Begin can be called on it at once.
func (w *Working) Freeze(ctx context.Context, o FreezeOptions) (*Layer, error) { panic("layer") }

// Discard throws the working root away.
func (w *Working) Discard() error { panic("layer") }

// View is a readable root of a chain.
type View struct{ _ int }

// View makes the chain readable; nil gives an empty directory.
func (s *Space) View(ctx context.Context, l *Layer) (*View, error) { panic("layer") }

// Root is a descriptor of the merged root (a detached read-only mount, or the
// only layer's directory).
func (v *View) Root() *os.File { panic("layer") }

// Close releases the view.
func (v *View) Close() error { panic("layer") }

// Squash returns a layer on top of base (an ancestor of top, or nil) whose
// content is all that the chain from base to top changed.
func (s *Space) Squash(ctx context.Context, base, top *Layer, o FreezeOptions) (*Layer, error) {
	panic("layer")
}

// Sync makes the layers durable: one syncfs(2) of the store's file system.
func (s *Space) Sync(ctx context.Context) error { panic("layer") }

// Close waits for background work to end (cancelled when the context that
// Begin was called with is), and removes all that is not a layer.
func (s *Space) Close() error { panic("layer") }
