package copier

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// destDir is an open directory that objects are made in.
type destDir struct {
	fd int // where they are made
	// meta is the descriptor that the directory's own metadata are set with:
	// for the topmost directory written past the overlay it is the one in the
	// merged root, since the overlay remembers owner and mode of what it has
	// seen. Otherwise it is fd.
	meta    int
	path    string // real path below the root
	inUpper bool   // fd is below Put.Upper; so is everything in it
	fresh   bool   // made by this Put
	// What an object made here gets: the group, and whether a default ACL
	// rather than the umask decides on its mode.
	gid uint32
	acl bool
	st  unix.Stat_t // of the directory when it was opened or made
	// final is what the directory becomes when all is in it; nil leaves it.
	final *dirMeta
	pt    *putter
	refs  atomic.Int32
}

// dirMeta is the metadata a directory ends with.
type dirMeta struct {
	owner  Owner
	mode   uint32
	mtime  unix.Timespec
	xattrs []xattr
	// timesOnly restores the modification time of a directory that existed.
	timesOnly bool
}

func (d *destDir) retain() *destDir {
	d.refs.Add(1)
	return d
}

func (d *destDir) release() {
	if d.refs.Add(-1) != 0 {
		return
	}
	if err := d.finish(); err != nil {
		d.pt.pool.cancel(fail("set the metadata of", d.path, err))
	}
	d.closeFDs()
}

func (d *destDir) closeFDs() {
	if d.meta != d.fd {
		at.Close(d.meta)
	}
	at.Close(d.fd)
}

func (d *destDir) finish() error {
	f := d.final
	if f == nil || d.pt.pool.ctx.Err() != nil {
		return nil
	}
	if !f.timesOnly {
		st := d.st
		if err := chown(d.meta, &st, f.owner, d.pt.p.IgnoreChownErrors); err != nil {
			return err
		}
		if st.Mode&0o7777 != f.mode {
			if err := at.Retry(func() error { return unix.Fchmod(d.meta, f.mode) }); err != nil {
				return err
			}
		}
		set := replaceXattrs
		if d.fresh {
			set = setXattrs
		}
		if err := set(d.meta, f.xattrs); err != nil {
			return err
		}
	}
	return at.Chtimes(d.meta, f.mtime)
}

// newDest takes over the descriptor of a directory of the merged root, or of
// the upper when parent is there. made says that this Put made it, so that it
// is empty and in the upper only: then the rest of the work goes past the
// overlay.
func (pt *putter) newDest(fd int, realPath string, parent *destDir, made bool) (*destDir, error) {
	d := &destDir{fd: fd, meta: fd, path: realPath, fresh: made, pt: pt, gid: pt.gid}
	d.refs.Store(1)
	if err := at.Stat(fd, &d.st); err != nil {
		at.Close(fd)
		return nil, err
	}
	if d.st.Mode&unix.S_ISGID != 0 {
		d.gid = d.st.Gid
	}
	switch {
	case parent != nil && made:
		d.acl = parent.acl
	default:
		_, err := unix.Fgetxattr(fd, "system.posix_acl_default", nil)
		d.acl = err == nil
	}
	if parent != nil && parent.inUpper {
		d.inUpper = true
		return d, nil
	}
	if made && pt.p.Upper != nil {
		pt.moveToUpper(d)
	}
	return d, nil
}

// moveToUpper makes d work in the upper directory, where the overlay has just
// made it. The overlay has not looked into it yet and remembers nothing of it.
// If anything is unexpected, d stays in the merged root, which is slower and
// always right.
func (pt *putter) moveToUpper(d *destDir) {
	fd, err := pt.p.Upper.resolver().OpenReal(d.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return
	}
	var st unix.Stat_t
	if at.Stat(fd, &st) != nil || st.Ctim != d.st.Ctim || st.Mtim != d.st.Mtim || st.Mode != d.st.Mode ||
		st.Uid != d.st.Uid || st.Gid != d.st.Gid || st.Nlink != d.st.Nlink && d.st.Nlink != 1 {
		at.Close(fd)
		return
	}
	d.fd, d.inUpper = fd, true
}

// deepPut is a directory whose content is copied when others are closed.
type deepPut struct {
	real    string // in the source root
	dst     string // in the destination root
	d       *dir
	pass    bool
	inUpper bool // the parent was
	made    bool
	acl     bool
}

// deep copies what tree put off.
func (pt *putter) deep() error {
	for len(pt.later) > 0 {
		p := pt.later[len(pt.later)-1]
		pt.later = pt.later[:len(pt.later)-1]
		src, err := pt.src.open(p.real)
		if err != nil {
			return err
		}
		root := pt.dst
		if p.inUpper {
			root = pt.p.Upper
		}
		fd, err := root.resolver().OpenReal(p.dst, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			at.Close(src)
			return fail("open directory", p.dst, err)
		}
		parent := &destDir{inUpper: p.inUpper, acl: p.acl}
		if err := pt.enter(src, p.real, fd, p.dst, parent, p.made, p.d, p.pass, 0); err != nil {
			return err
		}
	}
	return nil
}

// tree copies what n selects from the source directory src, lying at real, to
// dst. It takes both over.
func (pt *putter) tree(src int, real string, dst *destDir, n *dir, depth int) error {
	defer dst.release()
	from := newSharedFD(src)
	defer from.release()
	if pt.p.Hash {
		n.makeSums()
	}
	var items []putItem
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		j := putJob{from.retain(), real, dst.retain(), items}
		items = nil
		return pt.pool.send(j)
	}
	for i := range n.nodes {
		name := n.name(i)
		if isWhiteoutName(name) {
			return fail("copy", join(real, name), errWhiteoutName)
		}
		if n.nodes[i].isDir() {
			continue
		}
		if items = append(items, putItem{n, i, name, name}); len(items) == batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	for i := range n.nodes {
		if !n.nodes[i].isDir() {
			continue
		}
		if pt.ctx.Err() != nil {
			return context.Cause(pt.ctx)
		}
		if err := pt.subdir(src, real, dst, n, i, depth); err != nil {
			return err
		}
	}
	return nil
}

// subdir makes or merges the directory parent.nodes[i] and copies what is in it.
func (pt *putter) subdir(src int, real string, dst *destDir, parent *dir, i, depth int) error {
	name, n, pass := parent.name(i), parent.sub(i), parent.nodes[i].flags&flagPass != 0
	childReal, childPath := join(real, name), join(dst.path, name)
	made := true
	err := at.Retry(func() error { return unix.Mkdirat(dst.fd, name, 0o700) })
	if err == unix.EEXIST {
		made, err = false, nil
	}
	if err != nil {
		return fail("make directory", childPath, err)
	}
	if depth+1 >= maxDepth {
		pt.later = append(pt.later, deepPut{childReal, childPath, n, pass, dst.inUpper, made, dst.acl})
		return nil
	}
	fd, err := at.Open(dst.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return fail("copy directory to", childPath, errors.New("a file or symbolic link of that name is in the way; remove it first, or copy to where the link leads"))
	}
	if err != nil {
		return fail("open directory", childPath, err)
	}
	from, err := openSourceDir(src, name, childReal)
	if err != nil {
		at.Close(fd)
		return err
	}
	return pt.enter(from, childReal, fd, childPath, dst, made, n, pass, depth+1)
}

// enter copies the source directory from into the directory fd. It takes both
// over.
func (pt *putter) enter(from int, real string, fd int, path string, parent *destDir, made bool, n *dir, pass bool, depth int) error {
	d, err := pt.newDest(fd, path, parent, made)
	if err != nil {
		at.Close(from)
		return fail("stat", path, err)
	}
	if d.final, err = pt.dirMeta(from, d, made || !pass); err != nil {
		at.Close(from)
		d.closeFDs()
		return fail("read the metadata of", real, err)
	}
	return pt.tree(from, real, d, n, depth)
}

// dirMeta is what d becomes in the end: as the source directory, or as it was.
func (pt *putter) dirMeta(from int, d *destDir, takeSource bool) (*dirMeta, error) {
	if !takeSource {
		return &dirMeta{timesOnly: true, mtime: d.st.Mtim}, nil
	}
	var st unix.Stat_t
	if err := at.Stat(from, &st); err != nil {
		return nil, err
	}
	attrs, err := listXattrs(from)
	if err != nil {
		return nil, err
	}
	return &dirMeta{owner: pt.owner(from, ".", ".", &st), mode: perm(st.Mode, pt.p.Mode), mtime: pt.mtime(st.Mtim), xattrs: attrs}, nil
}

// mtime is the time that a copy of an object of this time gets.
func (pt *putter) mtime(own unix.Timespec) unix.Timespec {
	if pt.p.ModTime != nil {
		return timespec(*pt.p.ModTime)
	}
	return own
}

// owner is who a copy of the object of state st belongs to: name in dir, real
// below the source's root.
func (pt *putter) owner(dir int, name, real string, st *unix.Stat_t) Owner {
	if pt.p.Owner != nil {
		return *pt.p.Owner
	}
	return pt.src.sel.root.owner(dir, name, real, st)
}
