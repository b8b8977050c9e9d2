package copier

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// Tar writes the tree at unsafePath below r as a tar stream (for --output
// type=tar); sockets are left out. Members come in the order of their names'
// bytes, directory by directory; times are whole seconds; owners are numbers;
// extended attributes are PAX records (SCHILY.xattr), and PAX is used only
// where a member needs it. A directory gives its content under relative names,
// anything else the one member of its name. Equal trees give equal streams.
func (r *Root) Tar(ctx context.Context, unsafePath string, w io.Writer) error {
	t := &tarWriter{
		ctx: ctx, tw: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 256<<10),
		src: sourceReader{sel: &Selection{root: r}},
	}
	fd, realPath, err := r.resolver().Real(unsafePath)
	if err != nil {
		return fail("read", unsafePath, err)
	}
	defer at.Close(fd)
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return fail("stat", unsafePath, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		dir, err := t.src.open(path.Dir(realPath))
		if err != nil {
			return err
		}
		defer at.Close(dir)
		err = t.member(dir, path.Base(realPath), path.Base(realPath), &st)
		if err != nil {
			return err
		}
		return t.tw.Close()
	}
	dir, err := at.Open(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fail("open directory", unsafePath, err)
	}
	if err := t.tree(dir, realPath, "", 0); err != nil {
		return err
	}
	return t.tw.Close()
}

type tarWriter struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[inode]string // first name of what has several
	buf   []byte
	src   sourceReader
}

// tree writes what is in dir, which it takes over. The order is that of one
// walk, so depth costs descriptors: beyond maxDepth the parents are closed and
// opened again by path.
func (t *tarWriter) tree(dir int, real, rel string, depth int) error {
	defer func() { at.Close(dir) }()
	entries, err := at.ReadDir(dir)
	if err != nil {
		return fail("read directory", real, err)
	}
	for _, e := range entries {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		var st unix.Stat_t
		if err := at.Lstat(dir, e.Name, &st); err != nil {
			return sourceError(join(real, e.Name), err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			continue
		}
		name := join(rel, e.Name)
		if err := t.member(dir, e.Name, name, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := openSourceDir(dir, e.Name, join(real, e.Name))
		if err != nil {
			return err
		}
		deep := depth >= maxDepth
		if deep {
			at.Close(dir)
			dir = -1
		}
		if err := t.tree(sub, join(real, e.Name), name, depth+1); err != nil {
			return err
		}
		if deep {
			if dir, err = t.src.open(real); err != nil {
				return err
			}
		}
	}
	return nil
}

// member writes one object, but not what is in a directory.
func (t *tarWriter) member(dir int, base, name string, st *unix.Stat_t) error {
	typ := st.Mode & unix.S_IFMT
	fd := -1
	if typ == unix.S_IFREG || typ == unix.S_IFDIR {
		var err error
		if typ == unix.S_IFREG {
			fd, err = t.src.file(dir, base, name)
		} else {
			fd, err = openSourceDir(dir, base, name)
		}
		if err != nil {
			return err
		}
		defer at.Close(fd)
		if err := at.Stat(fd, st); err != nil {
			return fail("stat", name, err)
		}
		if st.Mode&unix.S_IFMT != typ {
			return changed(name)
		}
	}
	hdr, err := t.header(dir, base, name, fd, st)
	if err != nil {
		return fail("read", name, err)
	}
	if err := t.tw.WriteHeader(hdr); err != nil {
		return fmt.Errorf("write archive member %s: %w", show(name), err)
	}
	if hdr.Typeflag != tar.TypeReg || hdr.Size == 0 {
		return nil
	}
	return t.content(fd, hdr.Size, name)
}

func (t *tarWriter) header(dir int, base, name string, fd int, st *unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		hdr.Typeflag = tar.TypeDir
		hdr.Name += "/"
	case unix.S_IFLNK:
		link, err := at.Readlink(dir, base)
		if err != nil {
			return nil, err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, link
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, errors.New("unknown file type")
	}
	if st.Nlink > 1 && hdr.Typeflag != tar.TypeDir {
		id := inode{st.Dev, st.Ino}
		if first, ok := t.links[id]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return hdr, nil
		}
		t.links[id] = name
	}
	if fd < 0 {
		return hdr, nil
	}
	attrs, err := listXattrs(fd)
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords["SCHILY.xattr."+a.name] = string(a.value)
	}
	return hdr, nil
}

func (t *tarWriter) content(fd int, size int64, name string) error {
	for done := int64(0); done < size; {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		n, err := readFull(fd, t.buf, size-done)
		if err != nil {
			return fail("read", name, err)
		}
		if done += int64(n); n == 0 || done > size {
			return changed(name)
		}
		if _, err := t.tw.Write(t.buf[:n]); err != nil {
			return fmt.Errorf("write archive member %s: %w", show(name), err)
		}
	}
	return nil
}
