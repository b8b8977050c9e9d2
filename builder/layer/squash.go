package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Squash returns a layer on top of base (an ancestor of top, or nil) whose
// content is all that the chain from base to top changed. Files are hard
// linked from the layers they lie in, and copied only where that cannot be or
// where their times change. When nothing lies between, top is returned.
func (s *Space) Squash(ctx context.Context, base, top *Layer, o FreezeOptions) (*Layer, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	between, err := chainBetween(base, top)
	if err != nil || len(between) == 0 {
		return top, err
	}
	if err := s.pin(ctx, top); err != nil {
		return nil, err
	}
	if s.viaStorage(top) {
		return s.squashManaged(ctx, base, top, o)
	}
	_, dir, err := s.ws.Dir(ctx)
	if err != nil {
		return nil, err
	}
	attr, err := rootAttr(s.lowers(top))
	if err != nil {
		return nil, err
	}
	scratch, err := overlay.NewScratch(dir, s.step(), attr)
	if err != nil {
		return nil, err
	}
	if err := s.mergeInto(ctx, scratch.Upper, base, between, o); err != nil {
		scratch.Close()
		return nil, errors.Join(fmt.Errorf("squashing: %w", err), scratch.RemoveAll())
	}
	return s.commitUpper(ctx, base, scratch, o), nil
}

// chainBetween lists the layers above base, up to top, topmost first.
func chainBetween(base, top *Layer) ([]*Layer, error) {
	var between []*Layer
	for l := top; ; l = l.parent {
		if l == base || l != nil && base != nil && l.stored && base.stored && l.info.ID == base.info.ID {
			return between, nil
		}
		if l == nil {
			return nil, fmt.Errorf("squashing: the base is not below the top layer: %w", define.ErrInvalid)
		}
		between = append(between, l)
	}
}

func (s *Space) squashManaged(ctx context.Context, base, top *Layer, o FreezeOptions) (*Layer, error) {
	from, err := base.Wait(ctx)
	if err != nil {
		return nil, err
	}
	to, err := top.Wait(ctx)
	if err != nil {
		return nil, err
	}
	l := &Layer{parent: base, depth: base.Depth() + 1, done: make(chan struct{})}
	export := func(w io.Writer) error { return s.export(ctx, from.ID, string(to.ID), o, w) }
	if base == nil { // the library takes no base for the parent
		export = func(w io.Writer) error { return s.exportTree(ctx, top, o, w) }
	}
	s.commits.Go(func() {
		defer close(l.done)
		l.info, l.err = s.commitStream(ctx, base, export)
	})
	return l, nil
}

// mergeInto applies the layers' directories to upper, lowest first.
func (s *Space) mergeInto(ctx context.Context, upper *os.File, base *Layer, between []*Layer, o FreezeOptions) error {
	m := s.newMerger(ctx, base, &o)
	defer m.below.close()
	for i := len(between) - 1; i >= 0; i-- {
		dirs := between[i].dirs
		for j := len(dirs) - 1; j >= 0; j-- {
			if err := m.apply(dirs[j], upper); err != nil {
				return err
			}
		}
	}
	return settleTimes(upper, &o)
}

func (s *Space) newMerger(ctx context.Context, base *Layer, o *FreezeOptions) *merger {
	m := &merger{ctx: ctx, options: o, own: "trusted.overlay.", below: &lowerView{}, lister: newLister()}
	if base != nil {
		m.below.mount = func() (*os.File, error) { return s.mountReadOnly(ctx, base) }
	}
	if s.st.UserXattr() {
		m.own = "user.overlay."
	}
	return m
}

// merger applies one layer's directory on top of what lower ones left. The
// result is an upper directory as the kernel would have made it in one step;
// in particular it deletes nothing that the layers below do not have, because
// such deletions would be listed where the directory is not a merged one.
type merger struct {
	ctx     context.Context //nolint:containedctx // lives as long as mergeInto
	options *FreezeOptions
	own     string // prefix of overlay's own attributes
	below   *lowerView
	copies  *copies // nil: files are linked
	links   *linkLogs
	buf     []byte // of copies
	lister
}

// apply merges one directory into upper.
func (m *merger) apply(dir, upper *os.File) (err error) {
	if m.own == "user.overlay." {
		if m.links, err = openLinkLogs(dir, upper); err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, m.links.close())
			m.links = nil
		}()
	}
	src, err := openDirAt(int(dir.Fd()), ".")
	if err != nil {
		return err
	}
	dst, err := openDirAt(int(upper.Fd()), ".")
	if err != nil {
		unix.Close(src)
		return err
	}
	return m.merge(src, dst, "")
}

// merge closes both descriptors.
func (m *merger) merge(src, dst int, dir string) error {
	defer unix.Close(src)
	defer unix.Close(dst)
	if err := m.ctx.Err(); err != nil {
		return err
	}
	names, err := m.names(src)
	if err != nil {
		return fmt.Errorf("listing /%s: %w", dir, err)
	}
	into := os.NewFile(uintptr(dupFD(dst)), dir)
	defer into.Close()
	var children branches
	for _, name := range names {
		base := name[:len(name)-1]
		if err := m.object(src, dst, into, name, dir+base, &children); err != nil {
			return errors.Join(fmt.Errorf("/%s%s: %w", dir, base, err), children.wait())
		}
	}
	// A directory gets its times when all in it is made.
	if err := children.wait(); err != nil {
		return err
	}
	return m.copyDirAttributes(src, dst)
}

func dupFD(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}

// object applies one name of a layer.
func (m *merger) object(src, dst int, into *os.File, name, path string, children *branches) error {
	base := name[:len(name)-1]
	var st, was unix.Statx_t
	if err := statx(src, name, &st); err != nil {
		return err
	}
	exists := false
	if m.copies == nil { // a copy begins with nothing
		err := statx(dst, name, &was)
		exists = err == nil
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if exists {
			if _, err := store.RemoveTree(into, base); err != nil {
				return err
			}
		}
		if err := m.link(src, dst, base, path, &st); err != nil {
			return err
		}
		if k := st.Mode & unix.S_IFMT; m.links == nil || k == unix.S_IFREG || k == unix.S_IFSOCK || k == unix.S_IFCHR && st.Rdev_major == 0 && st.Rdev_minor == 0 {
			return nil
		}
		return m.links.carry(src, dst, base)
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	sub, err := unix.Openat(src, base, flags, 0)
	if err != nil {
		return err
	}
	_, marks, err := readXattrs(sub, m.own == "user.overlay.")
	if err != nil {
		unix.Close(sub)
		return err
	}
	// A directory that took another object's place, or that is opaque in its
	// own layer, hides what is below the base of the squash too.
	opaque := marks.opaque || exists && was.Mode&unix.S_IFMT != unix.S_IFDIR
	if opaque && exists {
		if _, err := store.RemoveTree(into, base); err != nil {
			unix.Close(sub)
			return err
		}
		exists = false
	}
	if !exists {
		if err := unix.Mkdirat(dst, base, 0o700); err != nil {
			unix.Close(sub)
			return err
		}
	}
	to, err := unix.Openat(dst, base, flags, 0)
	if err != nil {
		unix.Close(sub)
		return err
	}
	if opaque {
		if err := unix.Fsetxattr(to, m.own+"opaque", []byte{'y'}, 0); err != nil {
			unix.Close(sub)
			unix.Close(to)
			return fmt.Errorf("marking the directory opaque: %w", err)
		}
	}
	return m.descend(sub, to, path+"/", children)
}

// link puts a non-directory in place. Whiteouts are made anew: they are all
// one inode in their layer.
func (m *merger) link(src, dst int, base, path string, st *unix.Statx_t) error {
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil
	}
	if kind == unix.S_IFCHR && st.Rdev_major == 0 && st.Rdev_minor == 0 {
		if _, exists, err := m.below.stat(path); err != nil || !exists {
			return err
		}
		return unix.Mknodat(dst, base, unix.S_IFCHR, 0)
	}
	if m.copies != nil {
		return m.copy(src, dst, base, path, st)
	}
	mtime := timeOf(st.Mtime)
	if m.options.time(mtime).Equal(mtime) {
		err := unix.Linkat(src, base, dst, base, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return copyObject(src, dst, base, st)
}

// copyDirAttributes makes dst look like src, after its content came.
func (m *merger) copyDirAttributes(src, dst int) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	return setTime(dst, st.Mtim)
}
