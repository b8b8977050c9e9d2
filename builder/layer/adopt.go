package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"
)

// Layers enter the store in groups: while one group is recorded, which costs
// some synced files and, in a store of many layers, much writing, further
// steps end and become the next. One goroutine takes them, so that a layer
// comes after the one below.

// adoption is a layer that is ready to enter the store.
type adoption struct {
	ctx          context.Context //nolint:containedctx // its step's
	commit       *commit
	parent, info Info
	sum          *summary
	staged       *store.Staged // nil where the store takes layers one by one

	done chan struct{} // closed when err is set
	err  error
}

// stage describes the layer to the store, and compresses the record of its
// stream, before anybody waits for it.
func (a *adoption) stage() error {
	s := a.commit.space
	if !s.st.AdoptsTogether() {
		return nil
	}
	dir, _, err := s.ws.Dir(a.ctx)
	if err != nil {
		return err
	}
	fi, err := a.commit.layer.dirs[0].Stat()
	if err != nil {
		return err
	}
	upper := filepath.Join(dir, a.commit.scratch.UpperName())
	a.staged = &store.Staged{
		ID: a.info.ID, Parent: a.parent.ID, Dir: upper, Split: filepath.Join(path.Dir(upper), "tar-split.gz"),
		DiffID: a.info.DiffID, Size: a.info.Size, UIDs: a.sum.UIDs, GIDs: a.sum.GIDs, Mode: fi.Mode(),
	}
	return compressSplit(a.staged.Split, a.sum.TarSplit)
}

// compressSplit writes the record as the storage library does.
func compressSplit(file string, record *os.File) error {
	if _, err := record.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var small bytes.Buffer // nearly always all of it: one write
	w := &spillWriter{buf: &small, out: out}
	z, _ := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	z.Reset(w)
	_, err = record.WriteTo(z)
	return errors.Join(err, z.Close(), w.flush(), out.Close())
}

// compressors are of some 700 KiB.
var compressors = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // a level that there is
	return z
}}

// spillWriter gathers what is written into pieces.
type spillWriter struct {
	buf *bytes.Buffer
	out *os.File
}

func (w *spillWriter) Write(p []byte) (int, error) {
	if w.buf.Len()+len(p) > 1<<16 {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	return w.buf.Write(p)
}

func (w *spillWriter) flush() error {
	_, err := w.out.Write(w.buf.Bytes())
	w.buf.Reset()
	return err
}

// enqueue hands an adoption to the goroutine that takes layers into the store.
func (s *Space) enqueue(a *adoption) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, a)
	if !s.adopting {
		s.adopting = true
		s.commits.Go(s.adoptAll)
	}
}

// adoptAll takes what is queued until nothing is.
func (s *Space) adoptAll() {
	bad := map[define.LayerID]error{}
	for {
		s.mu.Lock()
		group := s.queue
		s.queue = nil
		s.adopting = len(group) > 0
		s.mu.Unlock()
		if len(group) == 0 {
			return
		}
		s.adoptGroup(group)
		for _, a := range group {
			if err := bad[a.parent.ID]; err != nil && a.parent.ID != "" {
				a.err = fmt.Errorf("the layer below: %w", err)
			}
			if a.err != nil {
				bad[a.info.ID] = a.err
			}
			close(a.done)
		}
	}
}

// adoptGroup sets err of each.
func (s *Space) adoptGroup(group []*adoption) {
	for len(group) > 0 {
		unlock, err := s.st.Lock(group[0].ctx)
		if err != nil {
			group[0].err = err // its step's end is not that of others
			group = group[1:]
			continue
		}
		s.adoptLocked(group)
		unlock()
		return
	}
}

func (s *Space) adoptLocked(group []*adoption) {
	var together []*store.Staged
	for _, a := range group {
		if a.staged != nil {
			together = append(together, a.staged)
		}
	}
	err := define.ErrUnsupported
	if len(together) > 0 {
		err = s.st.Adopt(together)
	}
	for _, a := range group {
		switch {
		case a.staged == nil || errors.Is(err, define.ErrUnsupported) || errors.Is(a.staged.Err, unix.EXDEV):
			a.err = a.adoptAlone()
		case err != nil:
			a.err = err
		case a.staged.Err != nil:
			a.err = a.staged.Err
		case a.staged.Found:
			// The same layer was made before, and this one is not needed; but
			// the image that it was made for may go away at any time.
			if a.err = s.ws.Pin(a.ctx, a.info.ID); errors.Is(a.err, define.ErrNotFound) {
				a.err = a.adoptAlone() // it has just gone
			}
		default:
			a.err = a.commit.keepLinks(filepath.Dir(filepath.Dir(a.staged.Dir)), a.info)
		}
	}
}

// adoptAlone takes the layer into the store by the library.
func (a *adoption) adoptAlone() error {
	s := a.commit.space
	_, err := s.st.Raw().Layer(string(a.info.ID))
	if err == nil {
		if err = s.ws.Pin(a.ctx, a.info.ID); !errors.Is(err, define.ErrNotFound) {
			return err
		}
		err = storage.ErrLayerUnknown
	}
	if !errors.Is(err, storage.ErrLayerUnknown) {
		return fmt.Errorf("layer %s: %w", a.info.ID, err)
	}
	return a.commit.adopt(a.ctx, a.parent, a.info, a.sum)
}

// adopt renames the upper directory into the store.
func (c *commit) adopt(ctx context.Context, parent, info Info, sum *summary) error {
	s := c.space
	dir, _, err := s.ws.Dir(ctx)
	if err != nil {
		return err
	}
	fi, err := c.layer.dirs[0].Stat()
	if err != nil {
		return err
	}
	mode := fi.Mode()
	split := sum.TarSplit
	sum.TarSplit = nil // closed by the store
	_, err = s.st.Raw().ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID:          string(info.ID),
		ParentLayer: string(parent.ID),
		DiffOutput: &drivers.DriverWithDifferOutput{
			Target:             filepath.Join(dir, c.scratch.UpperName()),
			Size:               info.Size,
			UncompressedDigest: info.DiffID,
			UIDs:               sum.UIDs,
			GIDs:               sum.GIDs,
			TarSplit:           split,
			RootDirMode:        &mode,
		},
		DiffOptions: &drivers.ApplyDiffWithDifferOpts{},
	})
	if errors.Is(err, unix.EXDEV) || errors.Is(err, storage.ErrNotSupported) {
		return c.unpack(ctx, parent, info)
	}
	if err != nil {
		return fmt.Errorf("taking layer %s into the store: %w", info.ID, store.Explain(s.st.Raw().GraphRoot(), err))
	}
	return c.keepLinks(dir, info)
}
