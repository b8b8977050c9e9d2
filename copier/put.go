package copier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Put says how a Selection lands.
type Put struct {
	// Dest is the unsafe destination below the root, absolute, with a
	// trailing slash when it must be a directory.
	Dest string
	// Owner for everything copied and made; nil keeps the source's for what
	// is copied, and 0:0 for directories made.
	Owner *Owner
	// Mode returns the permission bits for an object (--chmod); nil keeps. It
	// also decides on the destination directory when a directory's content
	// makes it; directories made above a destination are 0755.
	Mode func(fs.FileMode) fs.FileMode
	// Unpack extracts sources that are archives (ADD) in place of copying.
	Unpack bool
	// ArchiveOwners keeps the owners that archives say, whatever Owner is.
	ArchiveOwners bool
	// Upper is the overlay's upper directory, for writing new subtrees
	// without passing through the overlay; nil where there is none.
	Upper *Root
	// IgnoreChownErrors keeps going where an id cannot be given (a user
	// namespace with a single id).
	IgnoreChownErrors bool
	// OwnerLog, with IgnoreChownErrors, is where owners of symbolic links and
	// special files are noted that cannot be given: that of Upper, or of the root
	// that is written to where Upper is nil. It may be nil.
	OwnerLog *OwnerLog
	// Hash computes the digests of files' contents while they are copied, so
	// that Digests, called afterwards, reads no file again. A file that changes
	// in between is then an error of Digests.
	Hash bool
	// ModTime replaces the modification times of all that is copied or
	// unpacked; nil keeps them.
	ModTime *time.Time
	// DeviceRefused is about archives; see Extract.
	DeviceRefused func(name string)
	// Progress is told of each file's bytes, by one goroutine at a time; may
	// be nil.
	Progress func(bytes int64)
}

// Put copies the selection below r as Docker's COPY does: a directory source
// gives its contents; several sources want a directory; a missing destination
// is made. Modes, times (ns), extended attributes, hard links and holes are
// kept. Files and links at the destination are replaced; a directory is merged
// with one that exists, whose metadata become the source's below the
// destination itself; a directory over anything else, or a file over a
// directory, is an error. Directories that only gained entries keep their
// modification time. FIFOs and devices are made anew, sockets left out. Nothing
// is written outside r whatever the tree below r holds.
func (s *Selection) Put(ctx context.Context, r *Root, p Put) error {
	return newPutter(ctx, r, p).put(s)
}

func (pt *putter) put(s *Selection) error {
	pt.src.sel = s
	pt.pool.start(func() func(putJob) error {
		return (&putWorker{pt: pt, copy: contentCopier{pt: pt, buf: make([]byte, smallFile)}}).job
	})
	err := pt.sources(s)
	if err == nil {
		err = pt.barrier()
	}
	pt.src.close()
	err = pt.pool.finish(err)
	pt.hashed.share(s)
	if cerr := pt.close(); err == nil {
		err = cerr
	}
	return err
}

// putter is the state of one Put. Its own fields belong to the goroutine that
// walks; workers take the mutex.
type putter struct {
	ctx   context.Context
	p     Put
	dst   *Root
	src   sourceReader
	pool  *pool[putJob]
	times keepTimes
	umask uint32
	uid   uint32
	gid   uint32
	later []deepPut
	// single collects consecutive sources that are not directories.
	single singles

	mu     sync.Mutex
	links  hardLinks
	hashed hashedLinks
	copies copySupport
}

// putJob is some objects of one source directory, none of them a directory,
// that go to one destination directory.
type putJob struct {
	src     *sharedFD
	srcPath string
	dst     *destDir
	items   []putItem
}

type putItem struct {
	d        *dir
	i        int    // which of d
	from, to string // names in the two directories
}

func (it *putItem) node() *node { return &it.d.nodes[it.i] }

func (j putJob) release() {
	j.src.release()
	j.dst.release()
}

func newPutter(ctx context.Context, r *Root, p Put) *putter {
	pt := &putter{p: p, dst: r, pool: newPool[putJob](ctx), umask: processUmask()}
	pt.ctx = pt.pool.ctx
	pt.uid, pt.gid = uint32(unix.Geteuid()), uint32(unix.Getegid())
	pt.links.reset()
	return pt
}

// notes is where owners of links are noted.
func (pt *putter) notes() *linkNotes {
	upper := pt.p.Upper
	if upper == nil {
		upper = pt.dst
	}
	return &linkNotes{pt.p.OwnerLog, upper}
}

// close puts directory times back and releases what is open.
func (pt *putter) close() error {
	if pt.single.dst != nil {
		pt.single.dst.release()
		pt.single.dst = nil
	}
	return pt.times.restore()
}

// barrier waits until everything handed out is there, with its hard links.
func (pt *putter) barrier() error {
	if err := pt.flushSingles(); err != nil {
		return err
	}
	if err := pt.pool.wait(); err != nil {
		return err
	}
	return pt.makeLinks()
}

func (pt *putter) sources(s *Selection) error {
	dest, err := pt.destination(len(s.sources))
	if err != nil {
		return err
	}
	for i := range s.sources {
		src := &s.sources[i]
		if err := pt.ctx.Err(); err != nil {
			return context.Cause(pt.ctx)
		}
		if src.isDir() {
			err = pt.directory(src, dest)
		} else {
			err = pt.singleSource(src, dest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// destination is what the text of Put.Dest and the tree below the root say
// about where sources go.
type destination struct {
	path string
	// isDir: sources that are files go below it under their own names.
	isDir bool
}

func (pt *putter) destination(sources int) (destination, error) {
	d := destination{path: pt.p.Dest}
	if strings.IndexByte(d.path, 0) >= 0 {
		return d, fmt.Errorf("destination %s: %w", show(d.path), define.ErrInvalid)
	}
	if d.path == "" {
		d.path = "/"
	}
	d.isDir = strings.HasSuffix(d.path, "/") || strings.HasSuffix(d.path, "/.") || strings.HasSuffix(d.path, "/..") || d.path == "." || d.path == ".."
	if d.isDir {
		return d, nil
	}
	info, err := pt.dst.Stat(d.path, true)
	switch {
	case err == nil:
		d.isDir = info.Mode.IsDir()
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
		return d, err
	}
	if sources > 1 && !d.isDir {
		return d, fmt.Errorf("destination %s: %d sources need a directory; end the destination with a slash: %w", show(d.path), sources, define.ErrInvalid)
	}
	return d, nil
}

// dirMaker makes directories for a destination.
func (pt *putter) dirMaker() *dirMaker {
	return &dirMaker{owner: pt.p.Owner, mode: 0o755, mtime: optionalTime(pt.p.ModTime), keep: pt.times.add, ignoreChown: pt.p.IgnoreChownErrors}
}

// openDest opens the destination directory, making what is missing. The time
// it has now is put back at the end.
func (pt *putter) openDest(destPath string) (d *destDir, made bool, err error) {
	mk := pt.dirMaker()
	fd, realPath, err := pt.dst.resolver().MkdirAll(destPath, mk.make)
	if err != nil {
		return nil, false, dirError("copy to", destPath, err)
	}
	made = mk.madeLast(realPath)
	d, err = pt.newDest(fd, realPath, nil, made)
	if err != nil {
		return nil, false, fail("copy to", destPath, err)
	}
	if !made {
		if err := pt.times.add(fd, realPath, d.st.Mtim); err != nil {
			d.release()
			return nil, false, fail("copy to", destPath, err)
		}
	}
	return d, made, nil
}

// directory copies the content of a directory source.
func (pt *putter) directory(src *source, dest destination) error {
	if err := pt.barrier(); err != nil {
		return err
	}
	pt.links.reset()
	d, made, err := pt.openDest(dest.path)
	if err != nil {
		return err
	}
	if made && pt.p.Mode != nil {
		mode := perm(unix.S_IFDIR|0o755, pt.p.Mode)
		if err := at.Retry(func() error { return unix.Fchmod(d.meta, mode) }); err != nil {
			d.release()
			return fail("set the mode of", dest.path, err)
		}
	}
	fd, err := pt.src.open(src.real)
	if err != nil {
		d.release()
		return err
	}
	if err := pt.tree(fd, src.real, d, src.top.sub(0), 0); err != nil {
		return err
	}
	if err := pt.deep(); err != nil {
		return err
	}
	err = pt.barrier()
	// A later source may replace what a link would lead to.
	pt.links.reset()
	return err
}

// singles collects files that share their source and destination directories.
type singles struct {
	dst   *destDir
	name  string // fixed destination name, "" for the source's own
	names map[string]bool
	job   putJob
}

// singleSource copies a source that is not a directory.
func (pt *putter) singleSource(src *source, dest destination) error {
	dir, dirPath, base, err := pt.src.parent(src)
	if err != nil {
		return err
	}
	if pt.p.Unpack && src.top.nodes[0].mode() == unix.S_IFREG {
		done, err := pt.unpack(dir.fd, base, src, dest)
		if done || err != nil {
			return err
		}
	}
	if pt.single.dst == nil {
		if pt.single.dst, pt.single.name, err = pt.openTarget(dest); err != nil {
			return err
		}
	}
	to := pt.single.name
	if to == "" {
		to = src.name()
	}
	if isWhiteoutName(to) {
		return fail("copy", src.path, errWhiteoutName)
	}
	if pt.single.names[to] {
		// A later source of the same name wins: the order has to be kept.
		if err := pt.barrier(); err != nil {
			return err
		}
		pt.links.reset()
		clear(pt.single.names)
	}
	if pt.single.names == nil {
		pt.single.names = map[string]bool{}
	}
	pt.single.names[to] = true
	if j := &pt.single.job; len(j.items) > 0 && (j.src != dir || len(j.items) == batchSize) {
		if err := pt.flushSingles(); err != nil {
			return err
		}
	}
	if pt.p.Hash {
		src.top.makeSums()
	}
	j := &pt.single.job
	if len(j.items) == 0 {
		*j = putJob{src: dir.retain(), srcPath: dirPath, dst: pt.single.dst.retain()}
	}
	j.items = append(j.items, putItem{src.top, 0, base, to})
	return nil
}

func (pt *putter) flushSingles() error {
	j := pt.single.job
	pt.single.job = putJob{}
	if len(j.items) == 0 {
		return nil
	}
	return pt.pool.send(j)
}

// openTarget opens the directory that a file goes to, and tells the name it
// gets there when that is fixed.
func (pt *putter) openTarget(dest destination) (*destDir, string, error) {
	if dest.isDir {
		d, _, err := pt.openDest(dest.path)
		return d, "", err
	}
	mk := pt.dirMaker()
	fd, name, realDir, err := pt.dst.resolver().Target(dest.path, mk.make)
	if err != nil {
		return nil, "", dirError("copy to", dest.path, err)
	}
	made := mk.madeLast(realDir)
	d, err := pt.newDest(fd, realDir, nil, made)
	if err == nil && !made {
		if err = pt.times.add(fd, realDir, d.st.Mtim); err != nil {
			d.release()
		}
	}
	if err != nil {
		return nil, "", fail("copy to", dest.path, err)
	}
	return d, name, nil
}
