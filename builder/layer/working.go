package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// BeginOptions describes a writable root.
type BeginOptions struct {
	// Bottom is a directory shown below the whole chain that never becomes
	// part of the layer: mount points that a step needs. May be nil; ignored
	// (Working.HasBottom false) where the driver cannot do it.
	Bottom *os.File
	// Linked shows an empty root in place of the parent's, on which the layer
	// lies all the same (COPY --link): what is written depends on nothing that
	// is below.
	Linked bool
}

// Begin makes a writable root on top of parent (nil: an empty one).
func (s *Space) Begin(ctx context.Context, parent *Layer, o BeginOptions) (*Working, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	w := &Working{space: s, ctx: ctx, parent: parent, linked: o.Linked}
	if n := parent.Depth() + 1; n > overlay.MaxLowers {
		return nil, tooMany(n)
	}
	if err := s.pin(ctx, parent); err != nil {
		return nil, err
	}
	begin := w.beginOverlay
	if s.viaStorage(parent) {
		begin = w.beginManaged
	}
	if err := begin(ctx, o); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.working[w] = struct{}{}
	s.mu.Unlock()
	return w, nil
}

func tooMany(n int) error {
	return fmt.Errorf("the image would have %d layers, the limit is %d: flatten it with --squash or join instructions: %w", n, overlay.MaxLowers, define.ErrInvalid)
}

func (s *Space) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("the build's layer space is closed: %w", define.ErrInvalid)
	}
	return nil
}

// Working is a writable root. Exactly one of Freeze and Discard ends it.
type Working struct {
	space  *Space
	ctx    context.Context //nolint:containedctx // the contract: the commit ends with Begin's context
	parent *Layer
	linked bool // the parent is not shown

	scratch *overlay.Scratch
	lowers  []*os.File // of the mount, with bottom
	root    *os.File
	bottom  *os.File
	managed *managed // in place of scratch where a directory cannot be adopted
	kept    *kept    // the container's layer that Resume works on

	end sync.Once
}

func (w *Working) beginOverlay(ctx context.Context, o BeginOptions) error {
	s := w.space
	_, dir, err := s.ws.Dir(ctx)
	if err != nil {
		return err
	}
	lowers := s.lowers(w.parent)
	attr, err := rootAttr(lowers)
	if err != nil {
		return err
	}
	scratch, err := overlay.NewScratch(dir, s.step(), attr)
	if err != nil {
		return err
	}
	if o.Linked {
		lowers = nil
	}
	return w.mount(ctx, scratch, lowers, o)
}

// mount mounts the root, and takes the scratch directories over.
func (w *Working) mount(ctx context.Context, scratch *overlay.Scratch, lowers []*os.File, o BeginOptions) error {
	w.scratch = scratch
	err := w.mountRoot(ctx, lowers, o)
	if err != nil {
		w.scratch = nil
		scratch.Close()
		_ = scratch.RemoveAll()
		w.closeBottom()
	}
	return err
}

func (w *Working) mountRoot(ctx context.Context, lowers []*os.File, o BeginOptions) (err error) {
	s := w.space
	if o.Bottom != nil {
		if w.bottom, err = reopen(o.Bottom); err != nil {
			return fmt.Errorf("the step's mount points: %w", err)
		}
		lowers = append(lowers, w.bottom)
	} else if len(lowers) == 0 {
		empty, err := s.emptyDir(ctx)
		if err != nil {
			return err
		}
		lowers = append(lowers, empty)
	}
	w.lowers = lowers
	w.root, err = w.mountUpper(nil)
	return err
}

func (w *Working) mountUpper(m *overlay.IDMap) (*os.File, error) {
	return overlay.Mount(overlay.Options{Lowers: w.lowers, Upper: w.scratch.Upper, Work: w.scratch.Work, UserXattr: w.space.st.UserXattr(), Map: m})
}

// Mapped returns the root with owners seen through an id map, for a step in
// another user namespace: what it writes is stored with the ids that it sees.
// Root is nil until back is called, when the step has ended: two overlay
// mounts of one upper directory would not see each other's changes. Nothing
// may be left open of either. Both are called at most once.
func (w *Working) Mapped(m *overlay.IDMap) (root *os.File, back func() error, err error) {
	if w.scratch == nil {
		if root, err = m.Clone(w.root); err != nil {
			return nil, nil, err
		}
		return root, root.Close, nil
	}
	remount := func() error {
		if err := w.scratch.RenewWork(); err != nil {
			return err
		}
		w.root, err = w.mountUpper(nil)
		return err
	}
	if err := w.root.Close(); err != nil {
		return nil, nil, fmt.Errorf("unmounting the working root: %w", err)
	}
	w.root = nil
	if err := w.scratch.RenewWork(); err != nil {
		return nil, nil, err
	}
	if root, err = w.mountUpper(m); err != nil {
		return nil, nil, errors.Join(err, remount())
	}
	return root, func() error { return errors.Join(root.Close(), remount()) }, nil
}

// rootAttr returns what the root directory of a new layer looks like: as the
// topmost layer's, and for the first layer as containers/storage makes it.
func rootAttr(lowers []*os.File) (overlay.Attr, error) {
	if len(lowers) == 0 {
		return overlay.Attr{Mode: 0o555}, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(lowers[0].Fd()), &st); err != nil {
		return overlay.Attr{}, fmt.Errorf("the layer's root: %w", err)
	}
	return overlay.Attr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid)}, nil
}

func (w *Working) closeBottom() {
	if w.bottom != nil {
		w.bottom.Close()
		w.bottom = nil
	}
}

// Root is a descriptor of the merged root: a detached mount that can be moved
// into a step's mount namespace (move_mount(2)) and that names can be
// resolved in.
func (w *Working) Root() *os.File { return w.root }

// Upper is a descriptor of the overlay's upper directory; nil where the
// driver has none.
func (w *Working) Upper() *os.File {
	if w.scratch == nil {
		return nil
	}
	return w.scratch.Upper
}

// HasBottom reports whether BeginOptions.Bottom is in effect.
func (w *Working) HasBottom() bool { return w.bottom != nil }

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
//
// Descriptors that the caller made of Root (a copier.Root, a step's mount
// namespace) should be closed before: the unmount happens when the last one
// is. When Freeze fails, the working root is discarded.
func (w *Working) Freeze(ctx context.Context, o FreezeOptions) (*Layer, error) {
	var l *Layer
	err := errEnded
	w.end.Do(func() {
		if err = ctx.Err(); err == nil {
			switch {
			case w.kept != nil:
				err = fmt.Errorf("the container's own layer cannot be frozen: %w", define.ErrInvalid)
			case w.managed != nil:
				l, err = w.freezeManaged(o)
			default:
				l, err = w.freezeOverlay(ctx, o)
			}
		}
		if err != nil {
			_ = w.discard()
		}
		w.forget()
	})
	return l, err
}

var errEnded = fmt.Errorf("the working root was frozen or discarded before: %w", define.ErrInvalid)

// errNoRoot: the root could not be mounted again after Mapped.
var errNoRoot = errors.New("the working root is not mounted any more")

func (w *Working) forget() {
	w.space.mu.Lock()
	delete(w.space.working, w)
	w.space.mu.Unlock()
}

func (w *Working) freezeOverlay(ctx context.Context, o FreezeOptions) (*Layer, error) {
	if w.root == nil {
		return nil, errNoRoot
	}
	if err := w.root.Close(); err != nil {
		return nil, fmt.Errorf("unmounting the working root: %w", err)
	}
	w.root = nil
	s := w.space
	if err := w.settle(ctx, w.scratch.Upper, &o); err != nil {
		return nil, err
	}
	w.closeBottom()
	scratch := w.scratch
	w.scratch = nil // the commit's from now on
	return s.commitUpper(w.ctx, w.parent, scratch, o), nil
}

// commitUpper makes the frozen upper of a scratch directory a layer on top of
// parent, and commits it in the background.
func (s *Space) commitUpper(ctx context.Context, parent *Layer, scratch *overlay.Scratch, o FreezeOptions) *Layer {
	l := &Layer{parent: parent, depth: parent.Depth() + 1, dirs: []*os.File{scratch.Upper}, known: make(chan struct{}), done: make(chan struct{})}
	s.keep(scratch.Upper)
	if s.st.UserXattr() {
		// Now: it moves when the directory becomes a layer's. What is wrong with
		// it the commit says.
		_, _ = s.lowerLogs.of(scratch.Upper)
	}
	scratch.Upper = nil
	c := &commit{space: s, layer: l, scratch: scratch, options: o}
	s.commits.Go(func() { c.run(ctx) })
	return l
}

// settle does to the upper what must be done before later steps see it.
func (w *Working) settle(ctx context.Context, upper *os.File, o *FreezeOptions) error {
	below := &lowerView{}
	if w.parent != nil && !w.linked {
		below.mount = func() (*os.File, error) { return w.space.mountReadOnly(ctx, w.parent) }
	}
	defer below.close()
	if w.bottom != nil {
		if err := hideBottom(upper, w.bottom, below); err != nil {
			return err
		}
	}
	if err := omitEmpty(upper, o.Omit, below); err != nil {
		return err
	}
	return settleTimes(upper, o)
}

// Discard throws the working root away.
func (w *Working) Discard() error {
	var err error
	w.end.Do(func() {
		err = w.discard()
		w.forget()
	})
	return err
}

func (w *Working) discard() error {
	if w.root != nil {
		w.root.Close()
		w.root = nil
	}
	w.closeBottom()
	if w.managed != nil {
		m := w.managed
		w.managed = nil
		return m.remove()
	}
	var err error
	if w.scratch != nil {
		w.scratch.Close()
		err = w.scratch.RemoveAll()
	}
	if w.kept != nil {
		err = errors.Join(err, w.kept.close())
	}
	return err
}
