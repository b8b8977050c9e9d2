package copier

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// processUmask reads the umask, which no system call tells without changing
// it for all threads. All bits when it is not known: then every mode is set
// explicitly.
var processUmask = sync.OnceValue(func() uint32 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	_, rest, ok := strings.Cut(string(b), "\nUmask:")
	if !ok {
		return 0o777
	}
	line, _, _ := strings.Cut(rest, "\n")
	m, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(m)
})

// putWorker makes objects, one after the other.
type putWorker struct {
	pt   *putter
	copy contentCopier
}

func (w *putWorker) job(j putJob) error {
	for _, it := range j.items {
		if err := w.item(j, it); err != nil {
			return err
		}
	}
	return nil
}

func (w *putWorker) item(j putJob, it putItem) error {
	name := join(j.srcPath, it.from)
	n := it.node()
	if n.mode() == unix.S_IFREG {
		return w.regular(j, it, name)
	}
	var st unix.Stat_t
	if err := at.Lstat(j.src.fd, it.from, &st); err != nil {
		return sourceError(name, err)
	}
	if st.Mode&unix.S_IFMT != n.mode() {
		return changed(name)
	}
	if w.pt.linked(j.dst, it.to, &st) {
		return nil
	}
	link := ""
	if n.mode() == unix.S_IFLNK {
		var err error
		if link, err = at.Readlink(j.src.fd, it.from); err != nil {
			return sourceError(name, err)
		}
	}
	sp := special{
		mode: st.Mode&unix.S_IFMT | perm(st.Mode, w.pt.p.Mode), link: link, rdev: st.Rdev,
		owner: w.pt.owner(j.src.fd, it.from, name, &st), mtime: w.pt.mtime(st.Mtim),
		ignoreChown: w.pt.p.IgnoreChownErrors, real: join(j.dst.path, it.to), notes: w.pt.notes(),
	}
	if err := sp.make(j.dst.fd, it.to); err != nil {
		return fail("copy "+show(name)+" to", join(j.dst.path, it.to), err)
	}
	return nil
}

// regular copies a regular file in as few system calls as it can.
func (w *putWorker) regular(j putJob, it putItem, name string) error {
	src, err := w.pt.src.file(j.src.fd, it.from, name)
	if err != nil {
		return err
	}
	defer at.Close(src)
	var st unix.Stat_t
	if err := at.Stat(src, &st); err != nil {
		return fail("stat", name, err)
	}
	n := it.node()
	if st.Mode&unix.S_IFMT != unix.S_IFREG || n.flags&flagKnown != 0 && n.seen != knownState(&st) {
		return changed(name)
	}
	if w.pt.linked(j.dst, it.to, &st) {
		w.pt.hashedLink(it, &st, false)
		return nil
	}
	var attrs []xattr
	if n.flags&(flagKnown|flagPlain) != flagKnown|flagPlain {
		if attrs, err = listXattrs(src); err != nil {
			return fail("copy", name, err)
		}
	}
	mode := perm(st.Mode, w.pt.p.Mode)
	dst, err := createFile(j.dst.fd, it.to, mode)
	if err != nil {
		return fail("make", join(j.dst.path, it.to), err)
	}
	defer at.Close(dst)
	if err := w.content(src, dst, &st, it, name, join(j.dst.path, it.to), attrs); err != nil {
		// Half a file would look like the whole one to whoever works on.
		_ = unlink(j.dst.fd, it.to, 0)
		return err
	}
	mtime := w.pt.mtime(st.Mtim)
	m := fileMeta{owner: w.pt.owner(j.src.fd, it.from, name, &st), mode: mode, mtime: &mtime, xattrs: attrs}
	if err := w.pt.finishFile(dst, j.dst, m); err != nil {
		return fail("set the metadata of", join(j.dst.path, it.to), err)
	}
	return nil
}

// content copies the bytes, and keeps what they were for Digests when asked.
func (w *putWorker) content(src, dst int, st *unix.Stat_t, it putItem, from, to string, attrs []xattr) error {
	if !w.pt.p.Hash || it.node().flags&flagKnown != 0 {
		return w.copy.content(src, dst, st, from, to)
	}
	quiet := !writable(src)
	sum, err := w.copy.hashed(src, dst, st, from, to)
	if err != nil {
		return err
	}
	if quiet {
		it.node().flags |= flagQuiet
	}
	w.pt.hashedAs(it, copiedFile{copiedState(st), sum, attrs})
	w.pt.hashedLink(it, st, true)
	return nil
}

// createFile makes a new regular file, in place of whatever is there but a
// directory. It never opens what is there.
func createFile(dir int, name string, mode uint32) (fd int, err error) {
	err = replacing(dir, name, func() error {
		fd, err = at.Open(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode&0o777)
		return err
	})
	return fd, err
}

// errDirInWay is a file that would replace a directory.
var errDirInWay = errors.New("a directory of that name is in the way; remove it first, or copy into it with a slash at the end")

// replacing calls mk, which makes name in dir; what is in the way is removed
// unless it is a directory.
func replacing(dir int, name string, mk func() error) error {
	for tries := 0; ; tries++ {
		err := at.Retry(mk)
		if err != unix.EEXIST || tries == 16 {
			return err
		}
		switch err := unlink(dir, name, 0); err {
		case nil, unix.ENOENT:
		case unix.EISDIR:
			return errDirInWay
		default:
			var st unix.Stat_t
			if at.Lstat(dir, name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return errDirInWay
			}
			return err
		}
	}
}

// fileMeta is what a regular file made anew gets after its content.
type fileMeta struct {
	owner  Owner
	mode   uint32
	mtime  *unix.Timespec // nil: now
	xattrs []xattr
}

// finishFile sets the metadata of the file fd, made in d: the owner first,
// because that drops setuid bits and capabilities, the time last.
func (pt *putter) finishFile(fd int, d *destDir, m fileMeta) error {
	// What open(2) made of it, as long as the file system follows POSIX. One
	// mounted with grpid takes the directory's group.
	made := unix.Stat_t{Uid: pt.uid, Gid: d.gid, Mode: m.mode & 0o777 &^ pt.umask}
	if d.acl || pt.copies.odd.Load() {
		if err := at.Stat(fd, &made); err != nil {
			return err
		}
	}
	if !pt.copies.checked.Load() {
		var st unix.Stat_t
		if err := at.Stat(fd, &st); err != nil {
			return err
		}
		if st.Uid != made.Uid || st.Gid != made.Gid || st.Mode&0o7777 != made.Mode&0o7777 {
			pt.copies.odd.Store(true)
			made = st
		}
		pt.copies.checked.Store(true)
	}
	if err := chown(fd, &made, m.owner, pt.p.IgnoreChownErrors); err != nil {
		return err
	}
	if made.Mode&0o7777 != m.mode {
		if err := at.Retry(func() error { return unix.Fchmod(fd, m.mode) }); err != nil {
			return err
		}
	}
	if err := setXattrs(fd, m.xattrs); err != nil {
		return err
	}
	if m.mtime == nil {
		return nil
	}
	return at.Chtimes(fd, *m.mtime)
}
