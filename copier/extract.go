package copier

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Extract says how an archive lands.
type Extract struct {
	Dest              string // unsafe, below the root; made when missing
	Owner             *Owner // nil keeps the archive's
	Mode              func(fs.FileMode) fs.FileMode
	ModTime           *time.Time // of all members; nil keeps the archive's
	IgnoreChownErrors bool
	// OwnerLog and Upper are as in Put.
	OwnerLog *OwnerLog
	Upper    *Root
	// Limits against bombs; zero is no limit. MaxBytes counts the content of
	// all members, holes included.
	MaxBytes   int64
	MaxMembers int64
	// Match leaves members out; nil takes all. The name is relative and clean.
	Match func(name string) bool
	// DeviceRefused is told of a device node that the kernel lets real root
	// make alone; it is left out, as docker and buildah do for users. nil makes
	// it an error.
	DeviceRefused func(name string)
}

// Extract unpacks a tar stream in any usual compression (none, gzip, bzip2,
// xz, zstd) below r. Every member is resolved inside r, through the links that
// are there and that earlier members made, as in a chroot; members that are
// malformed, that lie outside the destination, that spell a deletion (.wh.) or
// that are of an unknown type are errors that name them. A member replaces
// what is there, but a directory only when that is empty; the last of several
// with one name wins. What follows the end mark is not read, except to reach a
// compression's check sum when that is near.
//
// When ctx is cancelled while archive blocks, a goroutine remains until its
// Read returns.
func (r *Root) Extract(ctx context.Context, archive io.Reader, e Extract) error {
	x := &extractor{
		ctx: ctx, root: r, e: e, dirs: map[string]dirState{}, buf: make([]byte, 256<<10),
		uid: uint32(unix.Geteuid()), parentFD: -1,
	}
	err := x.run(archive)
	x.dropParent()
	if ferr := x.finish(); err == nil {
		err = ferr
	}
	return err
}

type extractor struct {
	ctx  context.Context
	root *Root
	e    Extract
	base string // real path of the destination
	buf  []byte
	uid  uint32

	stream  *archiveStream
	members int64
	bytes   int64
	last    string // name of the latest member, for messages
	// dirs is what directories become when all is there.
	dirs map[string]dirState
	// The directory of the latest member stays open for the next.
	parentFD   int
	parentName string // as members spell it, clean
	parentReal string
}

// dirState is what a directory has in the end.
type dirState struct {
	mtime unix.Timespec
	mode  int32 // -1: as it is
}

func (x *extractor) run(archive io.Reader) error {
	mk := x.dirMaker()
	fd, base, err := x.root.resolver().MkdirAll(x.e.Dest, mk.make)
	if err != nil {
		return dirError("extract to", x.e.Dest, err)
	}
	defer at.Close(fd)
	x.base = base
	made := mk.madeLast(base)

	if x.stream, err = openArchive(archive, x.e.MaxBytes); err != nil {
		return err
	}
	defer x.stream.close()
	tr := tar.NewReader(x.stream)
	for {
		if err := x.ctx.Err(); err != nil {
			return context.Cause(x.ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, tar.ErrInsecurePath) {
			err = nil // a setting of the Go runtime; names are checked here
		}
		if err == io.EOF {
			if x.stream.count == 0 {
				return fmt.Errorf("the archive is empty: %w", define.ErrInvalid)
			}
			if err := x.stream.verify(); err != nil {
				return x.readError(err)
			}
			return nil
		}
		if err != nil {
			return x.readError(err)
		}
		if err := x.member(tr, hdr, made); err != nil {
			return err
		}
	}
}

// readError explains a stream that is damaged or short.
func (x *extractor) readError(err error) error {
	after := "before its first member"
	if x.last != "" {
		after = "after member " + show(x.last)
	}
	switch {
	case errors.Is(err, errTooLarge):
		return fmt.Errorf("%w of %d bytes, %s: %w", errTooLarge, x.e.MaxBytes, after, define.ErrInvalid)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the archive ended at %d bytes %s: it is truncated: %w", x.stream.count, after, define.ErrInvalid)
	case errors.Is(err, tar.ErrHeader) && x.last == "":
		return fmt.Errorf("not a tar archive, nor one in gzip, bzip2, xz or zstd: %w", define.ErrInvalid)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("malformed archive %s: %w", after, define.ErrInvalid)
	}
	return fmt.Errorf("read %s archive %s: %w", x.stream.kind, after, err)
}

// memberError names the member.
func memberError(name string, err error) error {
	return fmt.Errorf("archive member %s: %w", show(name), err)
}

// cleanMember makes a member's name relative to the destination: leading
// slashes go, as in every tar; a name that leads above is refused.
func cleanMember(unsafeName string) (string, error) {
	if strings.IndexByte(unsafeName, 0) >= 0 {
		return "", fmt.Errorf("the name holds a zero byte: %w", define.ErrInvalid)
	}
	p := path.Clean(strings.TrimLeft(unsafeName, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", fmt.Errorf("the name leads out of the destination: %w", define.ErrEscape)
	}
	for c := range strings.SplitSeq(p, "/") {
		if isWhiteoutName(c) {
			return "", errWhiteoutName
		}
	}
	return p, nil
}

func (x *extractor) member(tr *tar.Reader, hdr *tar.Header, madeDest bool) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return checkGlobal(hdr)
	}
	x.last = hdr.Name
	if x.members++; x.e.MaxMembers > 0 && x.members > x.e.MaxMembers {
		return memberError(hdr.Name, fmt.Errorf("the archive holds more than the %d members allowed: %w", x.e.MaxMembers, define.ErrInvalid))
	}
	if hdr.Name == "" {
		return memberError("", fmt.Errorf("it has no name: %w", define.ErrInvalid))
	}
	name, err := cleanMember(hdr.Name)
	if err != nil {
		return memberError(hdr.Name, err)
	}
	if x.e.Match != nil && name != "." && !x.e.Match(name) {
		return nil
	}
	if hdr.Typeflag == 'V' {
		return nil // GNU's volume label
	}
	if name == "." {
		// The destination itself is a directory and stays one (CVE-2021-29136).
		if hdr.Typeflag != tar.TypeDir {
			return memberError(hdr.Name, fmt.Errorf("it would replace the destination: %w", define.ErrInvalid))
		}
		if !madeDest {
			return nil
		}
	}
	m, err := x.meta(hdr)
	if err == nil {
		err = x.place(tr, hdr, name, m)
	}
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errTooLarge) {
			return x.readError(err)
		}
		return memberError(hdr.Name, err)
	}
	return nil
}

// checkGlobal refuses global records that would change members: GNU tar
// applies them, archive/tar does not, and a guess would smuggle files.
func checkGlobal(hdr *tar.Header) error {
	for k := range hdr.PAXRecords {
		switch k {
		case "path", "linkpath", "size", "uid", "gid", "mtime":
		default:
			if !strings.HasPrefix(k, "GNU.sparse.") && !strings.HasPrefix(k, "SCHILY.xattr.") {
				continue
			}
		}
		return fmt.Errorf("archive: the global header sets %s for all members, which is not supported: %w", show(k), define.ErrUnsupported)
	}
	return nil
}

// memberMeta is the metadata of a member in the kernel's terms.
type memberMeta struct {
	owner  Owner
	mode   uint32 // without the type
	mtime  unix.Timespec
	xattrs []xattr
}

func (x *extractor) meta(hdr *tar.Header) (memberMeta, error) {
	m := memberMeta{mtime: timespec(hdr.ModTime)}
	if x.e.ModTime != nil {
		m.mtime = timespec(*x.e.ModTime)
	}
	// 2^32-1 means "do not change" to chown(2).
	const lastID = 1<<32 - 2
	switch {
	case x.e.Owner != nil:
		m.owner = *x.e.Owner
	case hdr.Uid < 0 || hdr.Uid > lastID || hdr.Gid < 0 || hdr.Gid > lastID:
		return m, fmt.Errorf("owner %d:%d is out of range: %w", hdr.Uid, hdr.Gid, define.ErrInvalid)
	default:
		m.owner = Owner{hdr.Uid, hdr.Gid}
	}
	typ := map[byte]uint32{
		tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeChar: unix.S_IFCHR,
		tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
	}[hdr.Typeflag]
	if typ == 0 {
		typ = unix.S_IFREG
	}
	m.mode = perm(typ|uint32(hdr.Mode)&0o7777, x.e.Mode)
	for k, v := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && keepsXattr(name) {
			m.xattrs = append(m.xattrs, xattr{name, []byte(v)})
		}
	}
	return m, nil
}

// dirMaker makes directories that no member describes.
func (x *extractor) dirMaker() *dirMaker {
	return &dirMaker{owner: x.e.Owner, mode: 0o755, mtime: optionalTime(x.e.ModTime), ignoreChown: x.e.IgnoreChownErrors, keep: x.keep, noted: x.noted}
}

// noted is the time that a directory gets in the end.
func (x *extractor) noted(realPath string) (unix.Timespec, bool) {
	s, ok := x.dirs[realPath]
	return s.mtime, ok
}

// keep notes the time a directory is to have in the end, unless one is noted.
func (x *extractor) keep(_ int, path string, mtime unix.Timespec) error {
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		path = "."
	}
	if _, ok := x.dirs[path]; !ok {
		x.dirs[path] = dirState{mtime, -1}
	}
	return nil
}

// finish gives directories their times, and the modes that would have kept an
// unprivileged user from filling them.
func (x *extractor) finish() error {
	var first error
	for p, s := range x.dirs {
		fd, err := x.root.resolver().OpenReal(p, unix.O_RDONLY|unix.O_DIRECTORY)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue // a later member replaced it
		}
		if err == nil {
			if err = at.Chtimes(fd, s.mtime); err == nil && s.mode >= 0 {
				err = unix.Fchmod(fd, uint32(s.mode))
			}
			at.Close(fd)
		}
		if err != nil && first == nil {
			first = fail("set the metadata of", p, err)
		}
	}
	return first
}

// notes is where owners of links are noted that are extracted below r.
func (e *Extract) notes(r *Root) *linkNotes {
	if e.Upper != nil {
		r = e.Upper
	}
	return &linkNotes{e.OwnerLog, r}
}
