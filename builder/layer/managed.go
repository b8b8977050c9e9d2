package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"
)

// managed is a layer of containers/storage that stands behind a Working or a
// View where a directory cannot be adopted. It carries a name of the
// workspace, so that it is collected after a crash, and is mounted by the
// driver: with vfs nothing is mounted, with overlay variants the mount is in
// this process's mount namespace.
type managed struct {
	space  *Space
	id     string
	parent define.LayerID
}

// newManaged makes a layer on top of parent, which must be in the store, and
// mounts it.
func (s *Space) newManaged(ctx context.Context, parent define.LayerID, readOnly bool) (*managed, *os.File, error) {
	name, err := s.ws.LayerName(ctx)
	if err != nil {
		return nil, nil, err
	}
	raw := s.st.Raw()
	l, err := raw.CreateLayer("", string(parent), []string{name}, "", true, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("making a working layer: %w", store.Explain(raw.GraphRoot(), err))
	}
	m := &managed{space: s, id: l.ID, parent: parent}
	dir, err := raw.Mount(m.id, "")
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("mounting the working layer: %w", err), m.remove())
	}
	root, err := openRoot(dir, readOnly)
	if err != nil {
		return nil, nil, errors.Join(err, m.remove())
	}
	return m, root, nil
}

// openRoot opens what is mounted or lies at dir as a root.
func openRoot(dir string, readOnly bool) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return cloneMount(f, readOnly)
}

// cloneMount returns a detached copy of the mount that dir lies on, with dir
// as its root. Where that is not permitted (no CAP_SYS_ADMIN, a kernel before
// 5.2) it is a second descriptor of the directory; where a mount cannot be
// made read-only (before 5.12), it stays writable.
func cloneMount(dir *os.File, readOnly bool) (*os.File, error) {
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return reopen(dir)
	}
	if readOnly {
		_ = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
			Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		})
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}

// unmount ends the mount; forced, whatever others count.
func (m *managed) unmount() error {
	_, err := m.space.st.Raw().Unmount(m.id, true)
	if err != nil && !errors.Is(err, storage.ErrLayerNotMounted) {
		return fmt.Errorf("unmounting the working layer: %w", err)
	}
	return nil
}

// remove deletes the layer.
func (m *managed) remove() error {
	_ = m.unmount()
	err := m.space.st.Raw().DeleteLayer(m.id)
	if err != nil && !errors.Is(err, storage.ErrNotALayer) {
		return fmt.Errorf("removing the working layer: %w", err)
	}
	return nil
}

// beginManaged is Begin by way of the store's own layers: the layers below
// must have arrived there first.
func (w *Working) beginManaged(ctx context.Context, o BeginOptions) error {
	below, err := w.parent.Wait(ctx)
	if err != nil {
		return fmt.Errorf("the layer below: %w", err)
	}
	if o.Linked {
		below.ID = ""
	}
	w.managed, w.root, err = w.space.newManaged(ctx, below.ID, false)
	return err
}

func (w *Working) freezeManaged(o FreezeOptions) (*Layer, error) {
	if err := omitEmpty(w.root, o.Omit, nil); err != nil {
		return nil, err
	}
	w.root.Close()
	w.root = nil
	m := w.managed
	if err := m.unmount(); err != nil {
		return nil, err
	}
	w.managed = nil
	l := &Layer{parent: w.parent, depth: w.parent.Depth() + 1, done: make(chan struct{})}
	w.space.commits.Go(func() {
		defer close(l.done)
		l.info, l.err = m.space.commitStream(w.ctx, l.parent, func(out io.Writer) error {
			return m.space.export(w.ctx, m.parent, m.id, o, out)
		})
		if err := m.remove(); err != nil && l.err == nil {
			l.err = err
		}
	})
	return l, nil
}

// commitStream stores a tar stream as a layer on top of parent. The stream
// goes through a nameless file: exporting locks the store, and the digest must
// be known before the layer is made.
func (s *Space) commitStream(ctx context.Context, parent *Layer, export func(io.Writer) error) (Info, error) {
	_, scratch, err := s.ws.Dir(ctx)
	if err != nil {
		return Info{}, err
	}
	spool, err := tempFile(scratch)
	if err != nil {
		return Info{}, err
	}
	defer spool.Close()
	h := sha256.New()
	count := &countWriter{w: io.MultiWriter(h, spool)}
	if err := export(count); err != nil {
		return Info{}, fmt.Errorf("reading the new layer: %w", store.Explain(scratch.Name(), err))
	}
	below, err := parent.Wait(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("the layer below: %w", err)
	}
	info := below.child(digest.NewDigest(digest.SHA256, h), count.n)
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return Info{}, err
	}
	if err := s.put(ctx, below.ID, info, &cancelReader{ctx, spool}); err != nil {
		return info, err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return info, err
	}
	return info, s.rememberOwners(info.ID, spool)
}

// put unpacks a stream as a layer of the store.
func (s *Space) put(ctx context.Context, parent define.LayerID, info Info, stream io.Reader) error {
	raw := s.st.Raw()
	if _, err := raw.Layer(string(info.ID)); err == nil {
		if err := s.ws.Pin(ctx, info.ID); !errors.Is(err, define.ErrNotFound) {
			return err
		}
	}
	_, _, err := raw.PutLayer(string(info.ID), string(parent), nil, "", false, &storage.LayerOptions{
		OriginalDigest: info.DiffID, OriginalSize: &info.Size, UncompressedDigest: info.DiffID,
	}, stream)
	if err != nil && !errors.Is(err, storage.ErrDuplicateID) {
		return fmt.Errorf("unpacking layer %s into the store: %w", info.ID, store.Explain(raw.GraphRoot(), err))
	}
	return nil
}

// export writes the tar stream of what changed between two layers of the
// store.
func (s *Space) export(ctx context.Context, from define.LayerID, to string, o FreezeOptions, w io.Writer) error {
	uncompressed := archive.Uncompressed
	diff, err := s.st.Raw().Diff(string(from), to, &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		return err
	}
	defer diff.Close()
	in := &cancelReader{ctx, diff}
	if err := retime(w, in, o, s.st.UserXattr()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in) // to the end, for errors of the exporter
	return err
}

// exportTree writes the whole root of a chain as a tar stream.
func (s *Space) exportTree(ctx context.Context, l *Layer, o FreezeOptions, w io.Writer) error {
	v := &View{space: s}
	if err := s.viewManaged(ctx, l, v); err != nil {
		return err
	}
	defer v.Close()
	return s.exportRoot(ctx, v.root, o, w)
}

func (s *Space) exportRoot(ctx context.Context, root *os.File, o FreezeOptions, w io.Writer) error {
	t := &tarStream{root: root, readOnly: true, timestamp: o.Timestamp, clamp: o.Clamp, out: w}
	sum, err := t.digest(ctx)
	if err != nil {
		return err
	}
	sum.Close()
	return nil
}

// retime copies a tar stream with the modification times that o asks for and,
// in a user namespace, the owners that are remembered.
func retime(w io.Writer, r io.Reader, o FreezeOptions, remembered bool) error {
	times := o.Timestamp != nil || o.Clamp != nil
	if !times && !remembered {
		_, err := io.Copy(w, r)
		return err
	}
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if times {
			h.ModTime = o.time(h.ModTime)
			h.Format = tar.FormatUnknown
			for k := range h.PAXRecords {
				if k == "mtime" || k == "atime" || k == "ctime" {
					delete(h.PAXRecords, k)
				}
			}
		}
		if remembered {
			applyOwner(h)
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// viewManaged makes a chain readable by way of the store's own layers.
func (s *Space) viewManaged(ctx context.Context, l *Layer, v *View) error {
	info, err := l.Wait(ctx)
	if err != nil {
		return fmt.Errorf("the layer to read: %w", err)
	}
	if err := s.ws.Pin(ctx, info.ID); err != nil {
		return err
	}
	if info.ID == "" {
		empty, err := s.emptyDir(ctx)
		if err != nil {
			return err
		}
		v.root, err = cloneMount(empty, true)
		return err
	}
	raw := s.st.Raw()
	if raw.GraphDriverName() == "vfs" {
		// Each layer is a whole tree. Its directory is where the driver keeps
		// it, in the graph root or in an additional image store.
		for _, home := range append([]string{raw.GraphRoot(), raw.ImageStore()}, additionalStores(raw.GraphOptions())...) {
			if home == "" {
				continue
			}
			v.root, err = openRoot(path.Join(home, "vfs", "dir", string(info.ID)), true)
			if err == nil {
				return nil
			}
		}
		return fmt.Errorf("layer %s: %w", info.ID, err)
	}
	v.managed, v.root, err = s.newManaged(ctx, info.ID, true)
	return err
}

// additionalStores reads the additional image stores from driver options.
func additionalStores(options []string) []string {
	var dirs []string
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok && strings.HasSuffix(key, "imagestore") {
			dirs = append(dirs, strings.Split(value, ",")...)
		}
	}
	return dirs
}

// tempFile makes a file without a name in dir.
func tempFile(dir *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "layer"), nil
	}
	f, err := os.CreateTemp(dir.Name(), "layer-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", store.Explain(dir.Name(), err))
	}
	_ = os.Remove(f.Name())
	return f, nil
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// cancelReader ends reading when its context does.
type cancelReader struct {
	ctx context.Context //nolint:containedctx // a reader has no other way to know
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
