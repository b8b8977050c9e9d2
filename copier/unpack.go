package copier

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// unpack extracts the source if it is an archive, and reports whether it was.
func (pt *putter) unpack(dir int, base string, src *source, dest destination) (bool, error) {
	fd, err := pt.src.file(dir, base, src.real)
	if err != nil {
		return false, err
	}
	f := os.NewFile(uintptr(fd), src.real)
	defer f.Close()
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return false, fail("stat", src.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || src.top.nodes[0].flags&flagKnown != 0 && src.top.nodes[0].seen != knownState(&st) {
		return false, changed(src.path)
	}
	if ok, _ := sniff(f); !ok {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, fail("read", src.path, err)
	}
	// What came before must be there before an archive writes over it.
	if err := pt.barrier(); err != nil {
		return false, err
	}
	pt.links.reset()
	clear(pt.single.names)
	if err := pt.dst.Extract(pt.ctx, &progressReader{f, pt}, pt.extract(dest.path)); err != nil {
		return true, fmt.Errorf("unpack %s: %w", show(src.path), err)
	}
	return true, nil
}

func (pt *putter) extract(dest string) Extract {
	e := Extract{Dest: dest, Owner: pt.p.Owner, Mode: pt.p.Mode, ModTime: pt.p.ModTime, IgnoreChownErrors: pt.p.IgnoreChownErrors, OwnerLog: pt.p.OwnerLog, Upper: pt.p.Upper, DeviceRefused: pt.p.DeviceRefused}
	if pt.p.ArchiveOwners {
		e.Owner = nil
	}
	return e
}

// progressReader counts the bytes of an archive.
type progressReader struct {
	r  io.Reader
	pt *putter
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 && p.pt.p.Progress != nil {
		p.pt.mu.Lock()
		p.pt.p.Progress(int64(n))
		p.pt.mu.Unlock()
	}
	return n, err
}

// PutFile writes one file of the given contents at dest below r (a heredoc,
// a downloaded file): name is used when dest is a directory, and is one path
// component. mode holds permission bits, which p.Mode may change; a zero
// modTime is now; without p.Owner the file belongs to 0:0. With p.Unpack an
// archive is extracted instead.
func (r *Root) PutFile(ctx context.Context, name string, content io.Reader, mode fs.FileMode, modTime time.Time, p Put) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("file name %q: want a single path component: %w", name, define.ErrInvalid)
	}
	pt := newPutter(ctx, r, p)
	defer pt.pool.cancel(nil)
	err := pt.putFile(name, content, mode, modTime)
	if cerr := pt.close(); err == nil {
		err = cerr
	}
	return err
}

func (pt *putter) putFile(name string, content io.Reader, mode fs.FileMode, modTime time.Time) error {
	dest, err := pt.destination(1)
	if err != nil {
		return err
	}
	if pt.p.Unpack {
		b := bufio.NewReaderSize(content, 1<<20)
		head, err := b.Peek(1 << 20)
		if err != nil && err != io.EOF {
			return fail("read", name, err)
		}
		if ok, _ := sniff(bytes.NewReader(head)); ok {
			return pt.dst.Extract(pt.ctx, &progressReader{b, pt}, pt.extract(dest.path))
		}
		content = b
	}
	d, fixed, err := pt.openTarget(dest)
	if err != nil {
		return err
	}
	defer d.release()
	if fixed != "" {
		name = fixed
	}
	if isWhiteoutName(name) {
		return fail("write", name, errWhiteoutName)
	}
	m := fileMeta{mode: perm(permBits(mode)|unix.S_IFREG, pt.p.Mode)}
	if pt.p.Owner != nil {
		m.owner = *pt.p.Owner
	}
	if pt.p.ModTime != nil {
		modTime = *pt.p.ModTime
	}
	if !modTime.IsZero() {
		ts := timespec(modTime)
		m.mtime = &ts
	}
	if err := pt.stream(d, name, &progressReader{content, pt}, m); err != nil {
		return fail("write", path.Join("/", d.path, name), err)
	}
	return nil
}

// stream writes content to a new file.
func (pt *putter) stream(d *destDir, name string, content io.Reader, m fileMeta) error {
	fd, err := createFile(d.fd, name, m.mode)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	buf := make([]byte, 256<<10)
	for {
		if pt.ctx.Err() != nil {
			return context.Cause(pt.ctx)
		}
		n, err := content.Read(buf)
		if werr := writeFull(fd, buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return pt.finishFile(fd, d, m)
}
