package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// walker lists the tree in the stream's order: depth first, the names of each
// directory sorted as bytes.
type walker struct {
	*tarStream
	ctx     context.Context //nolint:containedctx // lives as long as run
	ordered chan<- *batch
	work    chan<- *batch
	cur     *batch
	count   int // members so far
	pad     int // due after the last member

	links      map[uint64]string // first name of each inode with several
	uids, gids map[uint32]struct{}
	reserved   []string // names that begin with .wh.
	below      *os.File // what is below the upper, once needed
	lister
}

// lister reads directories.
type lister struct {
	buf []byte // for getdents64(2)
}

func newLister() lister { return lister{buf: make([]byte, 32<<10)} }

// frame is a directory on the way from the root to where the walker is.
type frame struct {
	parent *frame
	base   string // with a NUL behind it, as all names of the walker
	path   string // "" for the root, else with a slash at the end
	dir    *dirHandle
	opaque bool

	lower      int // the directory of the same path below, or -1
	lowerKnown bool
}

func newWalker(t *tarStream, ctx context.Context, ordered, work chan<- *batch) *walker {
	return &walker{
		tarStream: t, ctx: ctx, ordered: ordered, work: work,
		links: map[uint64]string{}, uids: map[uint32]struct{}{}, gids: map[uint32]struct{}{},
		lister: newLister(),
	}
}

func (w *walker) run() error {
	defer func() {
		if w.below != nil {
			w.below.Close()
		}
	}()
	fd, err := unix.Openat(int(w.root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the upper directory: %w", err)
	}
	if err := w.directory(&frame{dir: w.dirs.add(fd)}); err != nil {
		return err
	}
	if len(w.reserved) > 0 {
		return fmt.Errorf("%s: names that begin with %q mean deletions in a layer and cannot be stored in one: rename or remove them: %w", strings.Join(w.reserved, ", "), whiteoutPrefix, define.ErrInvalid)
	}
	return w.flush()
}

// directory lists what is in f and closes it.
func (w *walker) directory(f *frame) error {
	defer func() {
		w.dirs.release(f.dir)
		if f.lowerKnown && f.lower >= 0 {
			unix.Close(f.lower)
		}
	}()
	names, err := w.names(f.dir.fd)
	if err != nil {
		return fmt.Errorf("listing /%s: %w", f.path, err)
	}
	for _, name := range names {
		if err := w.member(f, name); err != nil {
			return err
		}
	}
	return nil
}

// names reads and sorts a directory. The strings end with a NUL, which makes
// them ready for system calls, and does not change their order.
func (l lister) names(fd int) ([]string, error) {
	var names []string
	for {
		n, err := unix.Getdents(fd, l.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		for s := string(packDirents(l.buf[:n])); s != ""; {
			end := strings.IndexByte(s, 0) + 1
			names, s = append(names, s[:end]), s[end:]
		}
	}
	slices.Sort(names)
	return names, nil
}

// packDirents moves the names of linux_dirent64 records, each with its NUL, to
// the front of b and returns them: what is beside the names is as long again,
// and would be kept as long as they are.
func packDirents(b []byte) []byte {
	const header = 19 // d_ino 8, d_off 8, d_reclen 2, d_type 1
	packed := b[:0]
	for len(b) > header {
		length := int(b[16]) | int(b[17])<<8
		if length <= header || length > len(b) {
			break
		}
		name := b[header:length]
		b = b[length:]
		name = name[:bytes.IndexByte(name, 0)+1]
		if string(name) != ".\x00" && string(name) != "..\x00" && len(name) > 1 {
			packed = append(packed, name...) // it lies before what b still holds
		}
	}
	return packed
}

// statx is statx(2) of a name that ends with a NUL.
func statx(at int, name string, st *unix.Statx_t) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(at), uintptr(unsafe.Pointer(unsafe.StringData(name))),
			unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// member adds one object of a directory to the stream.
func (w *walker) member(f *frame, name string) error {
	var st unix.Statx_t
	base := name[:len(name)-1]
	if err := statx(f.dir.fd, name, &st); err != nil {
		return fmt.Errorf("looking at /%s%s: %w", f.path, base, err)
	}
	e := entry{
		name: f.path + base, base: base, mode: int64(st.Mode & 0o7777),
		uid: int64(st.Uid), gid: int64(st.Gid), mtime: w.mtime(st.Mtime.Sec),
	}
	kind := st.Mode & unix.S_IFMT
	whiteout := kind == unix.S_IFCHR && st.Rdev_major == 0 && st.Rdev_minor == 0
	switch {
	case whiteout:
		return w.whiteout(f, &e)
	case strings.HasPrefix(base, whiteoutPrefix):
		if len(w.reserved) < 10 {
			w.reserved = append(w.reserved, fmt.Sprintf("%q", "/"+e.name))
		}
		return nil
	case kind == unix.S_IFSOCK:
		// Of no use without its process; neither docker nor podman keeps one.
		if w.readOnly {
			return nil
		}
		if err := unlinkKeepingTime(f.dir.fd, base, false); err != nil {
			return fmt.Errorf("removing the socket /%s: %w", e.name, err)
		}
		return nil
	}
	if !w.readOnly && st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 && (kind == unix.S_IFREG || kind == unix.S_IFDIR) {
		store.ClearFlags(f.dir.fd, base) // no stream carries them, and they would keep the layer from being removed
	}
	if kind == unix.S_IFDIR {
		return w.subdirectory(f, name, &e)
	}
	switch kind {
	case unix.S_IFREG:
		e.typ, e.size, e.open = tar.TypeReg, int64(st.Size), true
	case unix.S_IFLNK:
		link, err := readlink(f.dir.fd, base, int(st.Size))
		if err != nil {
			return fmt.Errorf("reading the link /%s: %w", e.name, err)
		}
		e.typ, e.link = tar.TypeSymlink, link
	case unix.S_IFCHR, unix.S_IFBLK:
		e.typ = tar.TypeChar
		if kind == unix.S_IFBLK {
			e.typ = tar.TypeBlock
		}
		e.major, e.minor = int64(st.Rdev_major), int64(st.Rdev_minor)
	case unix.S_IFIFO:
		e.typ = tar.TypeFifo
	default:
		return fmt.Errorf("/%s: unknown type of file, mode %o: %w", e.name, st.Mode, define.ErrUnsupported)
	}
	if kind != unix.S_IFREG {
		if err := w.linkOwner(f, &e); err != nil {
			return err
		}
	}
	if st.Nlink > 1 {
		if first, ok := w.links[st.Ino]; ok {
			e.typ, e.link, e.size = tar.TypeLink, first, 0
		} else {
			w.links[st.Ino] = e.name
		}
	}
	return w.add(f, e)
}

// mtime applies Timestamp and Clamp.
func (w *walker) mtime(sec int64) int64 {
	switch {
	case w.timestamp != nil:
		return w.timestamp.Unix()
	case w.clamp != nil:
		return min(sec, w.clamp.Unix())
	}
	return sec
}

// whiteout adds a deletion, if there is something below to delete.
func (w *walker) whiteout(f *frame, e *entry) error {
	exists, _, err := w.lowerHas(f, e.base)
	if err != nil {
		return err
	}
	if !exists && w.readOnly {
		return nil
	}
	if !exists {
		if err := unlinkKeepingTime(f.dir.fd, e.base, false); err != nil {
			return fmt.Errorf("removing the empty deletion /%s: %w", e.name, err)
		}
		return nil
	}
	e.makeWhiteout()
	return w.add(f, *e)
}

// makeWhiteout turns e into the tar form of a deletion.
func (e *entry) makeWhiteout() {
	e.name = e.name[:len(e.name)-len(e.base)] + whiteoutPrefix + e.base
	e.typ, e.mode, e.size, e.link = tar.TypeReg, 0, 0, ""
	e.major, e.minor, e.xattrs = 0, 0, nil
}

func (w *walker) subdirectory(f *frame, name string, e *entry) error {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(f.dir.fd, e.base, flags, 0)
	if err != nil {
		return fmt.Errorf("opening /%s: %w", e.name, err)
	}
	sub := &frame{parent: f, base: name, path: e.name + "/", dir: w.dirs.add(fd)}
	e.typ, e.name = tar.TypeDir, sub.path
	var marks overlayMarks
	if e.xattrs, marks, err = readXattrs(fd, w.userXattr); err != nil {
		w.dirs.release(sub.dir)
		return fmt.Errorf("reading the extended attributes of /%s: %w", e.name, err)
	}
	marks.apply(e)
	if err := w.add(f, *e); err != nil {
		return err
	}
	if marks.opaque {
		_, isDir, err := w.lowerHas(f, e.base)
		if err != nil {
			return err
		}
		if isDir {
			opq := entry{name: sub.path + opaqueName, base: opaqueName, typ: tar.TypeReg, mode: e.mode & 0o777, uid: e.uid, gid: e.gid}
			if err := w.add(f, opq); err != nil {
				return err
			}
		}
		sub.opaque = true
	}
	return w.directory(sub)
}

// lowerHas reports whether what is below the upper shows name in f.
func (w *walker) lowerHas(f *frame, base string) (exists, isDir bool, err error) {
	at, err := w.lowerDir(f)
	if err != nil || at < 0 {
		return false, false, err
	}
	var st unix.Stat_t
	err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil:
		return true, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, false, nil
	}
	return false, false, fmt.Errorf("looking for /%s%s in the layers below: %w", f.path, base, err)
}

// lowerDir returns f's directory as the layers below show it, or -1.
func (w *walker) lowerDir(f *frame) (int, error) {
	if f.lowerKnown {
		return f.lower, nil
	}
	f.lower, f.lowerKnown = -1, true
	if f.opaque || w.lower == nil {
		return -1, nil
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	var fd int
	var err error
	if f.parent == nil {
		if w.below, err = w.lower(); err != nil {
			return -1, fmt.Errorf("the layers below: %w", err)
		}
		fd, err = unix.Openat(int(w.below.Fd()), ".", flags, 0)
	} else {
		var up int
		if up, err = w.lowerDir(f.parent); err != nil || up < 0 {
			return -1, err
		}
		fd, err = unix.Openat(up, f.base[:len(f.base)-1], flags, 0)
	}
	switch {
	case err == nil:
		f.lower = fd
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
	default:
		return -1, fmt.Errorf("looking for /%s in the layers below: %w", f.path, err)
	}
	return f.lower, nil
}

// add appends a member to the current batch.
func (w *walker) add(f *frame, e entry) error {
	w.uids[uint32(e.uid)] = struct{}{}
	w.gids[uint32(e.gid)] = struct{}{}
	if e.open {
		e.dir = f.dir
		f.dir.refs.Add(1)
	}
	e.pad, w.pad = w.pad, padding(e.size)
	large := e.size > batchBytes
	if w.cur != nil && (large || len(w.cur.entries) >= batchMembers || w.cur.bytes+e.size > batchBytes) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.cur == nil {
		w.cur = &batch{first: w.count, done: make(chan struct{}), entries: make([]entry, 0, 16)}
	}
	w.cur.entries = append(w.cur.entries, e)
	w.cur.bytes += e.size
	w.count++
	if large {
		return w.flush()
	}
	return nil
}

// flush hands the current batch on.
func (w *walker) flush() error {
	if w.cur == nil {
		return nil
	}
	b := w.cur
	w.cur = nil
	for _, c := range [...]chan<- *batch{w.ordered, w.work} {
		select {
		case c <- b:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
	return nil
}

func readlink(at int, name string, size int) (string, error) {
	for size = max(size, 64) + 1; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(at, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}
