package layer

import (
	"context"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
)

// Info is what is known of a layer once it is in the store.
type Info struct {
	ID      define.LayerID
	DiffID  digest.Digest // of the uncompressed tar stream
	Size    int64         // of the uncompressed tar stream, bytes
	ChainID digest.Digest // OCI image specification, "Layer ChainID"
}

// child returns the Info of the layer on top of i that has the tar stream.
// Its ID is what containers/image gives it, so that a pulled and a built
// layer are one: the diff ID's hex for a bottom layer, else
// sha256(parent ID + "+" + diff ID's hex).
func (i Info) child(diffID digest.Digest, size int64) Info {
	c := Info{DiffID: diffID, Size: size}
	if i.ID == "" {
		c.ID = define.LayerID(diffID.Encoded())
		c.ChainID = diffID
		return c
	}
	c.ID = define.LayerID(digest.Canonical.FromString(string(i.ID) + "+" + diffID.Encoded()).Encoded())
	if i.ChainID != "" {
		c.ChainID = chain(i.ChainID, diffID)
	}
	return c
}

// chain is the specification's ChainID(parent|diff).
func chain(parent, diff digest.Digest) digest.Digest {
	return digest.Canonical.FromString(parent.String() + " " + diff.String())
}

// Layer is a link of a chain: in the store, or frozen and on its way there.
// A nil *Layer is the empty root. Layers are valid until their Space closes.
type Layer struct {
	parent *Layer
	depth  int // number of layers, this one included

	// dirs are the layer's own directories, topmost first (old stores split
	// some layers): O_PATH descriptors, which stay valid when the directory
	// is renamed. A layer opened from the store has none until it is needed.
	dirs   []*os.File
	stored bool // opened from the store, not made by the Space
	// special says that the store's driver must mount the layer: ids are
	// mapped, or the content lies in a composefs image.
	special bool

	// known, if any, is closed when info is set, or err where there is none:
	// what lies on top of the layer need not wait until it is in the store.
	known chan struct{}
	done  chan struct{} // closed when info and err are set
	info  Info
	err   error
}

// Parent is the layer below; nil for the bottom one.
func (l *Layer) Parent() *Layer {
	if l == nil {
		return nil
	}
	return l.parent
}

// Depth is the number of layers of the chain that ends at l; 0 for nil.
func (l *Layer) Depth() int {
	if l == nil {
		return 0
	}
	return l.depth
}

// Wait returns once the layer is in the store, or with the reason why it
// cannot be. The empty root has an empty Info.
func (l *Layer) Wait(ctx context.Context) (Info, error) {
	if l == nil {
		return Info{}, nil
	}
	select {
	case <-l.done:
		return l.info, l.err
	default:
	}
	select {
	case <-l.done:
		return l.info, l.err
	case <-ctx.Done():
		return Info{}, fmt.Errorf("waiting for a layer to be committed: %w", ctx.Err())
	}
}

// waitKnown returns once it is known what the layer will be: it may be on its
// way to the store.
func (l *Layer) waitKnown(ctx context.Context) (Info, error) {
	if l == nil || l.known == nil {
		return l.Wait(ctx)
	}
	select {
	case <-l.known:
	case <-ctx.Done():
		return Info{}, fmt.Errorf("waiting for a layer to be read: %w", ctx.Err())
	}
	select {
	case <-l.done:
		return l.info, l.err
	default:
	}
	if l.info.ID == "" {
		return l.Wait(ctx)
	}
	return l.info, nil
}

// base returns the nearest layer of the chain that was opened from the store.
func (l *Layer) base() *Layer {
	for l != nil && !l.stored {
		l = l.parent
	}
	return l
}
