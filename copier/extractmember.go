package copier

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// parent opens the directory that a member goes to, making what is missing.
// The descriptor is good until the next call or dropParent.
func (x *extractor) parent(dirName string) (int, error) {
	if x.parentFD >= 0 && x.parentName == dirName {
		return x.parentFD, nil
	}
	x.dropParent()
	fd, realPath, err := x.root.resolver().MkdirAll(join(x.base, dirName), x.dirMaker().make)
	if err != nil {
		return -1, fmt.Errorf("its directory: %w", err)
	}
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		at.Close(fd)
		return -1, err
	}
	_ = x.keep(fd, realPath, st.Mtim)
	x.parentFD, x.parentName, x.parentReal = fd, dirName, realPath
	return fd, nil
}

// dropParent forgets the open directory: names may lead elsewhere now.
func (x *extractor) dropParent() {
	at.Close(x.parentFD)
	x.parentFD = -1
}

// place makes the member.
func (x *extractor) place(tr *tar.Reader, hdr *tar.Header, name string, m memberMeta) error {
	if name == "." {
		fd, err := x.root.resolver().OpenReal(x.base, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer at.Close(fd)
		return x.dirMeta(fd, x.base, m)
	}
	dirName, base := path.Split(name)
	dir, err := x.parent(path.Clean("./" + dirName))
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.directory(dir, base, m)
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return x.regular(tr, hdr, dir, base, m)
	case tar.TypeLink:
		return x.link(hdr, dir, base)
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.special(hdr, dir, base, m)
	}
	return fmt.Errorf("type %q is not supported: %w", hdr.Typeflag, define.ErrUnsupported)
}

// clear removes what a member replaces; an empty directory goes too, as with
// GNU tar.
func (x *extractor) clear(dir int, base string) error {
	err := unlink(dir, base, 0)
	if err == nil {
		x.dropParentLater()
		return nil
	}
	if err == unix.ENOENT {
		return nil
	}
	switch derr := unlink(dir, base, unix.AT_REMOVEDIR); derr {
	case nil, unix.ENOENT:
		x.dropParentLater()
		return nil
	case unix.ENOTEMPTY, unix.EEXIST:
		return errors.New("a directory that is not empty is in the way")
	case unix.ENOTDIR:
		return err
	default:
		return derr
	}
}

// dropParentLater makes the next member look its directory up again, while the
// present one goes on with the descriptor it has.
func (x *extractor) dropParentLater() { x.parentName = "\x00" }

func (x *extractor) directory(dir int, base string, m memberMeta) error {
	made := false
	for tries := 0; ; tries++ {
		err := at.Retry(func() error { return unix.Mkdirat(dir, base, 0o700) })
		if made = err == nil; made {
			break
		}
		if err != unix.EEXIST || tries == 16 {
			return err
		}
		var st unix.Stat_t
		if err := at.Lstat(dir, base, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			break
		}
		// A link to a directory is replaced, too.
		if err := x.clear(dir, base); err != nil {
			return err
		}
	}
	fd, err := at.Open(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	return x.dirMeta(fd, join(x.parentReal, base), m)
}

// dirMeta gives a directory its metadata, and notes what has to wait.
func (x *extractor) dirMeta(fd int, realPath string, m memberMeta) error {
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return err
	}
	if err := chown(fd, &st, m.owner, x.e.IgnoreChownErrors); err != nil {
		return err
	}
	now := m.mode
	state := dirState{mtime: m.mtime, mode: -1}
	if now&0o700 != 0o700 {
		now |= 0o700
		state.mode = int32(m.mode)
	}
	if st.Mode&0o7777 != now {
		if err := at.Retry(func() error { return unix.Fchmod(fd, now) }); err != nil {
			return err
		}
	}
	x.dirs[realPath] = state
	return replaceXattrs(fd, m.xattrs)
}

func (x *extractor) regular(tr *tar.Reader, hdr *tar.Header, dir int, base string, m memberMeta) error {
	if x.bytes += hdr.Size; x.e.MaxBytes > 0 && (x.bytes > x.e.MaxBytes || x.bytes < 0) {
		return errTooLarge
	}
	fd, err := createFile(dir, base, m.mode&0o700|0o600)
	if errors.Is(err, errDirInWay) {
		if err = x.clear(dir, base); err == nil {
			fd, err = createFile(dir, base, m.mode&0o700|0o600)
		}
	}
	if err != nil {
		return err
	}
	defer at.Close(fd)
	if err := x.content(tr, hdr, fd); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return err
	}
	if err := chown(fd, &st, m.owner, x.e.IgnoreChownErrors); err != nil {
		return err
	}
	if st.Mode&0o7777 != m.mode {
		if err := at.Retry(func() error { return unix.Fchmod(fd, m.mode) }); err != nil {
			return err
		}
	}
	if err := setXattrs(fd, m.xattrs); err != nil {
		return err
	}
	return at.Chtimes(fd, m.mtime)
}

// isSparse reports a member with holes, in any of GNU's encodings.
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for _, k := range []string{"GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.numblocks"} {
		if _, ok := hdr.PAXRecords[k]; ok {
			return true
		}
	}
	return false
}

// content writes the member's bytes; holes stay holes.
func (x *extractor) content(tr *tar.Reader, hdr *tar.Header, fd int) error {
	sparse := isSparse(hdr)
	if sparse {
		// The size first: one that no file can have fails before any byte.
		if err := at.Retry(func() error { return unix.Ftruncate(fd, hdr.Size) }); err != nil {
			return err
		}
	}
	for off := int64(0); off < hdr.Size; {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		n, err := io.ReadFull(tr, x.buf[:min(int64(len(x.buf)), hdr.Size-off)])
		if err != nil {
			return endIsUnexpected(err)
		}
		if sparse {
			err = writeData(fd, x.buf[:n], off)
		} else {
			err = writeFull(fd, x.buf[:n])
		}
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

var zeros [4096]byte

// writeData writes the blocks of b that are not all zeros.
func writeData(fd int, b []byte, off int64) error {
	isHole := func(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if isHole(b[:n]) {
			b, off = b[n:], off+int64(n)
			continue
		}
		for n < len(b) {
			next := min(len(b)-n, len(zeros))
			if isHole(b[n : n+next]) {
				break
			}
			n += next
		}
		for n > 0 {
			w, err := unix.Pwrite(fd, b[:n], off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			b, off, n = b[w:], off+int64(w), n-w
		}
	}
	return nil
}

// link makes a hard link. The target is a member's name too: relative to the
// destination, and resolved inside the root like one.
func (x *extractor) link(hdr *tar.Header, dir int, base string) error {
	target, err := cleanMember(hdr.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", show(hdr.Linkname), err)
	}
	from, name, fromReal, err := x.root.resolver().Parent(join(x.base, target))
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", show(hdr.Linkname), err)
	}
	defer at.Close(from)
	var st unix.Stat_t
	if err := at.Lstat(from, name, &st); err != nil {
		return fmt.Errorf("hard link to %s: %w", show(hdr.Linkname), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("hard link to %s, which is a directory: %w", show(hdr.Linkname), define.ErrInvalid)
	}
	if fromReal == x.parentReal && name == base {
		return nil // to itself
	}
	err = replacing(dir, base, func() error { return unix.Linkat(from, name, dir, base, 0) })
	if errors.Is(err, errDirInWay) {
		if err = x.clear(dir, base); err == nil {
			err = unix.Linkat(from, name, dir, base, 0)
		}
	}
	x.dropParentLater()
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", show(hdr.Linkname), err)
	}
	return nil
}

func (x *extractor) special(hdr *tar.Header, dir int, base string, m memberMeta) error {
	sp := special{owner: m.owner, mtime: m.mtime, ignoreChown: x.e.IgnoreChownErrors, mode: m.mode,
		real: join(x.parentReal, base), notes: x.e.notes(x.root)}
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		if hdr.Linkname == "" {
			return fmt.Errorf("symbolic link to nothing: %w", define.ErrInvalid)
		}
		sp.mode, sp.link = unix.S_IFLNK|0o777, hdr.Linkname
	case tar.TypeFifo:
		sp.mode |= unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Devmajor < 0 || hdr.Devmajor > 1<<32-1 || hdr.Devminor < 0 || hdr.Devminor > 1<<32-1 {
			return fmt.Errorf("device %d:%d is out of range: %w", hdr.Devmajor, hdr.Devminor, define.ErrInvalid)
		}
		sp.rdev = unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		sp.mode |= unix.S_IFBLK
		if hdr.Typeflag == tar.TypeChar {
			sp.mode = m.mode | unix.S_IFCHR
		}
	}
	err := sp.make(dir, base)
	if errors.Is(err, errDirInWay) {
		if err = x.clear(dir, base); err == nil {
			err = sp.make(dir, base)
		}
	}
	x.dropParentLater()
	if sp.rdev != 0 && x.e.DeviceRefused != nil && errors.Is(err, unix.EPERM) {
		x.e.DeviceRefused(show(hdr.Name))
		return nil
	}
	return err
}
