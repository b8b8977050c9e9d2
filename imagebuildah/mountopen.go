package imagebuildah

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// mountOpener opens the mounts of one step and holds them while it runs.
type mountOpener struct {
	s       *stage
	step    *define.Step
	run     *builder.Run
	closers []func() error
}

func (o *mountOpener) close() error {
	var err error
	for i := len(o.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, o.closers[i]())
	}
	o.closers = nil
	return err
}

func (o *mountOpener) open(ctx context.Context, list []*runMount) error {
	for _, m := range list {
		var err error
		switch m.Type {
		case instructions.MountTypeBind:
			err = o.bind(ctx, m)
		case instructions.MountTypeTmpfs:
			err = o.tmpfs(m)
		case instructions.MountTypeSecret:
			err = o.secret(m)
		case instructions.MountTypeSSH:
			err = o.ssh(ctx, m)
		}
		if err != nil {
			return fmt.Errorf("--mount=type=%s,target=%s: %w", m.Type, m.target, err)
		}
	}
	// Last: nothing else is waited for while locks are held.
	return o.caches(ctx, list)
}

// add gives the step a tree, which is closed with the opener.
func (o *mountOpener) add(m *runMount, tree *os.File, options ...string) {
	o.closers = append(o.closers, tree.Close)
	o.volume(m, tree, options...)
}

func (o *mountOpener) volume(m *runMount, tree *os.File, options ...string) {
	o.run.Mounts = append(o.run.Mounts, isolation.Volume{Tree: tree, Target: m.target, ReadOnly: m.ReadOnly, Own: m.own(),
		Noted: m.noted(), Mapped: m.mapped, Options: append(options, m.mountOptions()...)})
}

// own reports that what is shown is the builder's, which may be written to.
func (m *runMount) own() bool {
	return !m.ReadOnly || m.Type == instructions.MountTypeTmpfs || m.Type == instructions.MountTypeBind && m.Chown
}

// noted reports that what is shown may have owners that are remembered.
func (m *runMount) noted() bool {
	return m.Type == instructions.MountTypeSecret || m.origin != nil && m.origin.top != nil
}

// mountOptions are those of buildah's options that the builder sees to. nodev
// is so anyway.
func (m *runMount) mountOptions() (options []string) {
	if m.NoSUID {
		options = append(options, "nosuid")
	}
	if m.NoExec {
		options = append(options, "noexec")
	}
	if m.Propagation != "" {
		options = append(options, m.Propagation)
	}
	if m.Chown {
		options = append(options, builder.VolumeChown)
	}
	return options
}

func (o *mountOpener) tmpfs(m *runMount) error {
	mode := uint32(0o1777)
	options := []string{"nosuid"}
	if m.CopyUp {
		options = append(options, builder.VolumeCopyUp)
	}
	if m.TmpfsMode != nil {
		mode = *m.TmpfsMode
		if m.CopyUp {
			options[1] = builder.VolumeCopyUpMode
		}
	}
	tree, err := runmount.Tmpfs(m.SizeLimit, mode)
	if err != nil {
		return err
	}
	o.add(m, tree, options...)
	return nil
}

// bind shows a file or directory of the context, a stage or an image.
func (o *mountOpener) bind(ctx context.Context, m *runMount) error {
	root, err := o.bindRoot(ctx, m)
	if err != nil {
		return err
	}
	if m.NoDereference {
		mapped := m.mapped
		m.mapped = false // the link is no part of the root
		if done, err := o.bindLink(ctx, m, root); done || err != nil {
			return err
		}
		m.mapped = mapped
	}
	info, err := root.Stat(m.Source, true)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("source %q does not exist in %s: %w", m.Source, m.where(), define.ErrNotFound)
	}
	if err == nil {
		err = regularOrDir(m.Source, info.Mode)
	}
	if err != nil {
		return err
	}
	if m.origin.top != nil || m.origin.detached && m.untouched() {
		return o.tree(m, root.File(), root, m.Source)
	}
	return o.bindContext(ctx, m, root, info.Mode.IsDir())
}

// untouched reports that neither the step nor option U changes the source.
func (m *runMount) untouched() bool { return m.ReadOnly && !m.Chown }

func (m *runMount) where() string {
	if m.From == "" {
		return "the context"
	}
	return m.From
}

// bindRoot is the root that the source is looked up in: for a mount of a stage
// or image that is changed a root of its own, whose changes are thrown away.
func (o *mountOpener) bindRoot(ctx context.Context, m *runMount) (*copier.Root, error) {
	idmap, err := o.s.b.engine.MountMap(&o.run.Confinement)
	if err != nil {
		return nil, err
	}
	if m.untouched() && idmap == nil || m.origin.top == nil {
		return m.origin.open(ctx)
	}
	top, err := m.origin.top(ctx)
	if err != nil {
		return nil, err
	}
	w, err := o.s.b.space.Begin(ctx, top, layer.BeginOptions{})
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, w.Discard)
	dir := w.Root()
	if idmap != nil {
		var back func() error
		if dir, back, err = w.Mapped(idmap); err != nil {
			return nil, err
		}
		o.closers = append(o.closers, back)
		m.mapped = true
	}
	root, err := copier.NewRoot(dir)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, root.Close)
	return root, nil
}

// bindContext shows a part of the context: the thing itself where all of it
// may be seen and it is only read, else something that stands for it.
func (o *mountOpener) bindContext(ctx context.Context, m *runMount, root *copier.Root, dir bool) error {
	shared := m.origin.ignore == nil
	if shared && (m.untouched() || dir) {
		sub, err := root.Open(m.Source, unix.O_PATH)
		if err != nil {
			return err
		}
		defer sub.Close()
		if m.untouched() {
			return o.treeOf(m, nil, sub)
		}
		err = o.discarding(ctx, m, sub)
		if !errors.Is(err, define.ErrUnsupported) {
			return err
		}
	}
	sel, err := m.pick(ctx)
	if err != nil {
		return err
	}
	return o.copied(ctx, m, sel)
}

// discarding puts a writable layer over lower.
func (o *mountOpener) discarding(ctx context.Context, m *runMount, lower *os.File) error {
	_, scratch, err := o.s.b.space.Dir(ctx)
	if err != nil {
		return err
	}
	idmap, err := o.s.b.engine.MountMap(&o.run.Confinement)
	if err != nil {
		return err
	}
	tree, remove, err := runmount.Discarding(scratch, o.s.b.mountName(), lower, o.s.b.engine.Store().UserXattr(), idmap)
	if err != nil {
		return err
	}
	m.mapped = idmap != nil
	o.closers = append(o.closers, remove)
	o.add(m, tree)
	return nil
}

// copied shows a copy, which is thrown away.
func (o *mountOpener) copied(ctx context.Context, m *runMount, sel *copier.Selection) error {
	_, scratch, err := o.s.b.space.Dir(ctx)
	if err != nil {
		return err
	}
	f, remove, err := runmount.Copy(ctx, sel, scratch, o.s.b.mountName(), o.s.b.engine.SingleID())
	if err != nil {
		return err
	}
	o.closers = append(o.closers, remove)
	defer f.Close()
	return o.treeOf(m, nil, f)
}

// tree shows what lies at source below root; mount is the root of the
// detached mount that root is.
func (o *mountOpener) tree(m *runMount, mount *os.File, root *copier.Root, source string) error {
	sub, err := root.Open(source, unix.O_PATH)
	if err != nil {
		return err
	}
	defer sub.Close()
	return o.treeOf(m, mount, sub)
}

func (o *mountOpener) treeOf(m *runMount, mount, sub *os.File) error {
	tree, err := o.cloned(m, mount, sub)
	if err != nil {
		return err
	}
	o.add(m, tree)
	return nil
}

func (o *mountOpener) cloned(m *runMount, mount, sub *os.File) (*os.File, error) {
	if m.NonRecursive && m.origin.top == nil && !m.origin.detached {
		return runmount.TreeAlone(sub)
	}
	return runmount.Tree(mount, sub)
}

// mountName is a name in the space's scratch directory.
func (b *build) mountName() string { return "mount-" + strconv.FormatInt(b.mountIDs.Add(1), 10) }

// caches opens all cache mounts at once, so that locks are taken in one order.
func (o *mountOpener) caches(ctx context.Context, list []*runMount) error {
	var mounts []*runMount
	var want []runmount.Cache
	for _, m := range list {
		if m.Type != instructions.MountTypeCache {
			continue
		}
		c, err := o.cache(ctx, m)
		if err != nil {
			return fmt.Errorf("--mount=type=cache,target=%s: %w", m.target, err)
		}
		mounts, want = append(mounts, m), append(want, c)
	}
	if len(want) == 0 {
		return nil
	}
	waiting := func(id string) {
		o.s.emit(define.Event{Kind: define.EventNote, Step: o.step, Text: fmt.Sprintf("waiting for the cache mount %q, which another step has locked", id)})
	}
	held, err := runmount.AcquireCaches(ctx, o.s.b.engine.Store(), want, waiting)
	if errors.Is(err, errMountImport) {
		// No build fails for its cache.
		o.s.emit(define.Event{Kind: define.EventWarning, Step: o.step, Text: err.Error() + "; it begins empty"})
		held, err = runmount.AcquireCaches(ctx, o.s.b.engine.Store(), withoutImports(want), waiting)
	}
	if err != nil {
		return err
	}
	o.closers = append(o.closers, held.Close)
	for i, m := range mounts {
		// The directory is strata's own: it may be labelled.
		var options []string
		switch m.Relabel {
		case "shared":
			options = append(options, builder.VolumeShared)
		case "private":
			options = append(options, builder.VolumePrivate)
		}
		o.volume(m, held.Trees[i], options...)
	}
	return nil
}

var sharings = map[instructions.ShareMode]runmount.Sharing{
	"": runmount.Shared, instructions.MountSharingShared: runmount.Shared,
	instructions.MountSharingPrivate: runmount.Private, instructions.MountSharingLocked: runmount.Locked,
}

// cache translates a cache mount. With from=, a new directory begins with the
// source's content.
func (o *mountOpener) cache(ctx context.Context, m *runMount) (runmount.Cache, error) {
	c := runmount.Cache{ID: m.CacheID, Sharing: sharings[m.CacheSharing], Source: m.Source, Attr: o.attr(m, 0o755)}
	if m.origin == nil {
		o.s.fromElsewhere(&c)
		return c, nil
	}
	base, files, err := o.s.mountBase(ctx, m)
	if err != nil {
		return c, err
	}
	if files != nil {
		var text strings.Builder
		text.WriteString(base)
		files.Each(func(path []byte, sum *[sha256.Size]byte) bool {
			fmt.Fprintf(&text, "%s\x00sha256:%x\x00", path, sum[:])
			return true
		})
		base = text.String()
	}
	// The source's content is all that the directory holds.
	c.Base, c.Source = path.Join("/", m.Source)+"\x00"+base, ""
	c.Seed = func(ctx context.Context, to *copier.Root) error {
		sel, err := m.pick(ctx)
		if err != nil {
			return err
		}
		if s := sel.Sources(); len(s) != 1 || !s[0].Info.Mode.IsDir() {
			return fmt.Errorf("source %q in %s is not a directory: %w", m.Source, m.where(), define.ErrInvalid)
		}
		return sel.Put(ctx, to, copier.Put{Dest: "/", IgnoreChownErrors: o.s.b.engine.SingleID()})
	}
	return c, nil
}
