package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// Add is one COPY or ADD, with its sources already selected.
type Add struct {
	// Dest is the destination as written; relative to WORKDIR.
	Dest string
	// Selections are the trees and files to copy, in order.
	Selections []*copier.Selection
	// Files are single files whose contents are at hand (heredocs,
	// downloads), written after the selections.
	Files []AddFile
	// Owner for all that is written; nil keeps the source's (KeepOwner) or is
	// 0:0.
	Owner *copier.Owner
	// KeepOwner keeps the source's owners where Owner is nil.
	KeepOwner bool
	// Mode changes permission bits; nil keeps them.
	Mode func(fs.FileMode) fs.FileMode
	// ModTime replaces all modification times; nil keeps them.
	ModTime *time.Time
	// Unpack extracts archives among the selections (ADD).
	Unpack bool
	// Hash computes digests of contents on the way (copier.Put).
	Hash bool
	// Progress is told of bytes written; may be nil.
	Progress func(int64)
}

// AddFile is one file to write.
type AddFile struct {
	Name    string
	Content io.Reader
	Mode    fs.FileMode
	ModTime time.Time
	// Unpack extracts the content when it is an archive.
	Unpack bool
}

// BytesFile is an AddFile of contents in memory. Its time is the Unix epoch:
// equal inputs must give equal layers.
func BytesFile(name string, content []byte, mode fs.FileMode) AddFile {
	return AddFile{Name: name, Content: bytes.NewReader(content), Mode: mode, ModTime: time.Unix(0, 0)}
}

// AbsDest makes a destination absolute below workdir, keeping a trailing
// slash (which says that it is a directory; "." and ".." at the end say so
// too).
func AbsDest(workdir, dest string) string {
	dir := strings.HasSuffix(dest, "/") || dest == "" || path.Base(dest) == "." || path.Base(dest) == ".."
	if !path.IsAbs(dest) {
		dest = path.Join("/", workdir, dest)
	}
	dest = path.Clean(dest)
	if dir && dest != "/" {
		dest += "/"
	}
	return dest
}

// Add copies into the container's root; the changes stay open.
func (c *Container) Add(ctx context.Context, a Add) error {
	return c.add(ctx, a, layer.BeginOptions{}, c.top == nil && !c.Dirty())
}

// AddLinked copies into an empty root, whose layer goes on top of the chain
// when it is sealed, which is to be done next (COPY --link). There must be no
// open changes.
func (c *Container) AddLinked(ctx context.Context, a Add) error {
	if c.Dirty() || c.stored != nil && !c.stored.layered {
		return errors.New("container has changes that are not sealed")
	}
	return c.add(ctx, a, layer.BeginOptions{Linked: true}, true)
}

// Graft puts the content of a layer that AddLinked made on top of the chain,
// whatever that layer lies on.
func (c *Container) Graft(ctx context.Context, id define.LayerID) (*layer.Layer, error) {
	if c.working != nil {
		return nil, errors.New("container has changes that are not sealed")
	}
	l, err := c.space.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	g, err := c.space.Graft(ctx, c.space.life, c.top, l)
	if err != nil {
		return nil, err
	}
	c.top = g
	return g, nil
}

func (c *Container) add(ctx context.Context, a Add, o layer.BeginOptions, fresh bool) error {
	w, err := c.begin(ctx, o)
	if err != nil {
		return err
	}
	put := copier.Put{
		Dest: AbsDest(c.Image.Config.WorkingDir, a.Dest), Owner: a.Owner, Mode: a.Mode,
		Unpack: a.Unpack, Hash: a.Hash, ModTime: a.ModTime, IgnoreChownErrors: c.engine.opts.SingleID, Progress: a.Progress,
	}
	var left deviceList
	put.DeviceRefused = left.add
	defer left.report(c.engine.Listener())
	if put.Owner == nil && !a.KeepOwner {
		// A context's owners mean nothing, but an archive's are its content.
		put.Owner, put.ArchiveOwners = &copier.Owner{}, true
	}
	if c.engine.opts.SingleID && w.Upper() != nil {
		log, err := copier.OpenOwnerLog(w.Upper())
		if err != nil {
			return err
		}
		defer log.Close()
		put.OwnerLog = log
	}
	if w.Upper() == nil {
		return withRoot(w.Root(), func(root *copier.Root) error { return a.write(ctx, root, put) })
	}
	return withRoot(w.Upper(), func(upper *copier.Root) error {
		if fresh {
			// Nothing is below, and nobody has looked through the overlay yet:
			// the upper directory is the root.
			return a.write(ctx, upper, put)
		}
		put.Upper = upper
		return withRoot(w.Root(), func(root *copier.Root) error { return a.write(ctx, root, put) })
	})
}

// deviceList is what an archive's device nodes that could not be made are
// called. Steps have a /dev of their own, so that most images do without.
type deviceList struct {
	first string
	n     int
}

func (d *deviceList) add(name string) {
	if d.n++; d.n == 1 {
		d.first = name
	}
}

func (d *deviceList) report(l define.Listener) {
	if d.n == 0 {
		return
	}
	text := "the device node " + d.first
	if d.n > 1 {
		text += fmt.Sprintf(" of the archive and %d more are", d.n-1)
	} else {
		text += " of the archive is"
	}
	define.Emit(l, define.Event{Kind: define.EventWarning, Text: text + " left out: only real root can make them; build as root to have them"})
}

// write puts the selections and files below root.
func (a *Add) write(ctx context.Context, root *copier.Root, put copier.Put) error {
	for _, s := range a.Selections {
		if err := s.Put(ctx, root, put); err != nil {
			return err
		}
	}
	for _, f := range a.Files {
		put.Unpack = f.Unpack
		if err := root.PutFile(ctx, f.Name, f.Content, f.Mode, f.ModTime, put); err != nil {
			return err
		}
	}
	return nil
}

// Mkdir makes a directory in the container's root, as WORKDIR does; what
// exists is left as it is.
func (c *Container) Mkdir(ctx context.Context, dir string, owner copier.Owner) error {
	w, err := c.begin(ctx, layer.BeginOptions{})
	if err != nil {
		return err
	}
	return withRoot(w.Root(), func(root *copier.Root) error { return ensureDir(root, dir, owner) })
}
