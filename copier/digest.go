package copier

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// Index remembers the sha256 of file contents by the identity that stat(2)
// gives, so that an unchanged file is not read again. Implementations decide
// what they trust; nil remembers nothing. Only files without extended
// attributes are remembered: a hit says that there are none. Both methods are
// called from several goroutines at once.
type Index interface {
	Lookup(FileID) (content [sha256.Size]byte, ok bool)
	Remember(id FileID, content [sha256.Size]byte)
}

// FileID identifies one state of one file.
type FileID struct {
	Dev, Ino     uint64
	Size         int64
	MTime, CTime int64 // nanoseconds since the epoch
}

// DigestOptions says what counts and where contents may be known from.
type DigestOptions struct {
	KeepOwner bool
	Index     Index
}

// workers is how many goroutines write files at once. The work is bound by the
// kernel's file system code; two hide its latency without fighting over
// directory locks.
const workers = 2

// batchSize is how many files of a directory go to a worker at once. Two workers
// that create in one directory wait for its lock: larger batches keep them
// apart in most trees, smaller ones share a single large directory better.
const batchSize = 64

// Digests digests all objects. Each file is read once, or not at all if the
// index knows it; what was digested by Select, with the same options, is not
// looked at again. A Selection's methods are not to be called at the same time.
func (s *Selection) Digests(ctx context.Context, o DigestOptions) (*Digests, error) {
	if s.done == nil || s.done.o != o {
		s.done = newDigester(o)
		for i := range s.sources {
			s.sources[i].digested = false
		}
	}
	src := sourceReader{sel: s}
	defer src.close()
	scan := newScanner(ctx, &src)
	scan.digest = s.done
	s.done.attrs = s.attrs
	total := 0
	for i := range s.sources {
		if err := s.digestSource(scan, i); err != nil {
			return nil, err
		}
		total += s.sources[i].top.count()
	}
	s.done.hardLinks(s.sources)
	return &Digests{sources: s.sources, total: total}, nil
}

func (s *Selection) digestSource(scan *scanner, i int) error {
	src := &s.sources[i]
	if src.digested {
		return nil
	}
	var err error
	if sub := src.top.sub(0); sub != nil {
		err = scan.run(scanJob{real: src.real, d: sub, source: i})
		src.digested = err == nil
		return err
	}
	dir, parent, base, err := scan.src.parent(src)
	if err != nil {
		return err
	}
	src.top.makeSums()
	if err := scan.ctx.Err(); err != nil {
		return context.Cause(scan.ctx)
	}
	w := &s.done.one
	w.ctx, w.src = scan.ctx, scan.src
	err = w.item(dir.fd, &scanJob{real: parent, d: src.top, source: i, name: base}, 0)
	src.digested = err == nil
	return err
}

type inode struct{ dev, ino uint64 }

// body is what hard links share; it is read once.
type body struct {
	content [sha256.Size]byte
	xattrs  []xattr
}

// linked is an object with other names, whose digest waits until it is known
// which of them are selected too.
type linked struct {
	object object
	body   *body
}

// digester is what one pass of Digests over a Selection shares.
type digester struct {
	o     DigestOptions
	attrs map[*node][]xattr // of what a Put has copied
	one   digestWorker      // for single files

	mu     sync.Mutex
	inodes map[inode]*body
	linked []linked
}

func newDigester(o DigestOptions) *digester {
	d := &digester{o: o}
	d.one.d = d
	return d
}

// hardLinks finishes the objects that have several names. The first selected
// one, by source and path, is the file; the others are links to it.
func (d *digester) hardLinks(sources []source) {
	if len(d.linked) == 0 {
		return
	}
	first := map[*body]string{}
	for i := range sources {
		for c := sources[i].cursor(i); c.next(); {
			if c.d == nil || c.d.nodes[c.i].flags&flagLinked == 0 {
				continue
			}
			c.d.nodes[c.i].flags &^= flagLinked
			sum := &c.d.sums[c.i]
			l := &d.linked[binary.NativeEndian.Uint32(sum[:])]
			if f, ok := first[l.body]; ok {
				l.object.hardlink = f
			} else {
				first[l.body] = strconv.Itoa(i) + ":" + string(c.path)
			}
			*sum = l.object.digest(l.body)
		}
	}
	d.linked, d.inodes = nil, nil
}

// object is what counts of an object besides its body.
type object struct {
	typ, mode uint32
	owned     bool // the owner counts
	uid, gid  uint32
	rdev      uint64
	link      string
	hardlink  string
}

// digest encodes every field with its length, so that no two objects share an
// encoding. The first field is the version of the encoding.
func (o *object) digest(b *body) [sha256.Size]byte {
	buf := make([]byte, 0, 256)
	field := func(s string) {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	field("strata file 1")
	buf = binary.AppendUvarint(buf, uint64(o.typ))
	buf = binary.AppendUvarint(buf, uint64(o.mode))
	if o.owned {
		field(strconv.FormatUint(uint64(o.uid), 10) + ":" + strconv.FormatUint(uint64(o.gid), 10))
	} else {
		field("")
	}
	buf = binary.AppendUvarint(buf, o.rdev)
	field(o.link)
	field(o.hardlink)
	if b != nil {
		buf = binary.AppendUvarint(buf, uint64(len(b.xattrs)))
		for _, x := range b.xattrs {
			field(x.name)
			field(string(x.value))
		}
		buf = append(buf, b.content[:]...)
	}
	return sha256.Sum256(buf)
}

func hexDigest(sum [sha256.Size]byte) digest.Digest {
	var b [7 + 2*sha256.Size]byte
	copy(b[:], "sha256:")
	hex.Encode(b[7:], sum[:])
	return digest.Digest(b[:])
}

// digestWorker reads files, one after the other.
type digestWorker struct {
	ctx  context.Context
	d    *digester
	src  *sourceReader
	hash hash.Hash
	buf  []byte
	body body        // of the object at hand
	st   unix.Stat_t // of it
}

// item digests the object i of j.d, which is in the open directory dir and no
// directory itself.
func (w *digestWorker) item(dir int, j *scanJob, i int) error {
	n := &j.d.nodes[i]
	it := digestItem{n: n, sum: &j.d.sums[i], dir: dir, job: j, name: j.name}
	lstat := func(st *unix.Stat_t) error { return at.LstatIn(dir, j.d.names, n.off, st) }
	if it.name == "" {
		it.name = j.d.name(i)
	} else {
		lstat = func(st *unix.Stat_t) error { return at.Lstat(dir, it.name, st) }
	}
	st := &w.st // a variable of its own would be allocated for each file
	if n.typ == unix.S_IFREG>>12 && w.d.o.Index == nil && n.flags&flagCopied == 0 {
		return w.regular(it, nil)
	}
	if err := lstat(st); err != nil {
		return fail("stat", it.path(), err)
	}
	if st.Mode&unix.S_IFMT != n.mode() {
		return changed(it.path())
	}
	if n.typ == unix.S_IFREG>>12 {
		return w.regular(it, st)
	}
	o := w.of(it, st)
	if n.typ == unix.S_IFLNK>>12 {
		link, err := at.Readlink(dir, it.name)
		if err != nil {
			return fail("read link", it.path(), err)
		}
		o.link, o.mode = link, 0
	}
	return w.emit(it, o, st, func(*body) error { return nil })
}

// digestItem is the object that a worker digests.
type digestItem struct {
	n    *node
	sum  *[sha256.Size]byte
	dir  int
	name string // in dir
	job  *scanJob
}

func (it *digestItem) path() string { return join(it.job.real, it.name) }

// object is what the state st tells; dir, name and real lead to it.
func (w *digestWorker) object(dir int, name, real string, st *unix.Stat_t) object {
	o := object{typ: st.Mode & unix.S_IFMT, mode: st.Mode & 0o7777}
	if o.typ == unix.S_IFCHR || o.typ == unix.S_IFBLK {
		o.rdev = st.Rdev
	}
	if w.d.o.KeepOwner {
		owner := w.src.sel.root.owner(dir, name, real, st)
		o.owned, o.uid, o.gid = true, uint32(owner.UID), uint32(owner.GID)
	}
	return o
}

func (w *digestWorker) of(it digestItem, st *unix.Stat_t) object {
	real := ""
	if w.d.o.KeepOwner {
		real = it.path()
	}
	return w.object(it.dir, it.name, real, st)
}

// directory digests the open directory of the job, below a source.
func (w *digestWorker) directory(fd int, j scanJob) error {
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return fail("stat", j.real, err)
	}
	var err error
	b := &body{}
	if b.xattrs, err = listXattrs(fd); err != nil {
		return fail("digest", j.real, err)
	}
	o := w.object(fd, ".", j.real, &st)
	j.up.sums[j.at] = o.digest(b)
	return nil
}

// emit records an object, whose body is read by read unless another name of
// the same inode has led to it before.
func (w *digestWorker) emit(it digestItem, o object, st *unix.Stat_t, read func(*body) error) error {
	if st.Nlink <= 1 {
		w.body = body{}
		if err := read(&w.body); err != nil {
			return err
		}
		*it.sum = o.digest(&w.body)
		it.n.flags = it.n.flags&^flagLinked | flagDigested
		return nil
	}
	d, id := w.d, inode{st.Dev, st.Ino}
	d.mu.Lock()
	b, known := d.inodes[id]
	if !known {
		b = new(body)
		if d.inodes == nil {
			d.inodes = map[inode]*body{}
		}
		d.inodes[id] = b
	}
	place := uint32(len(d.linked))
	d.linked = append(d.linked, linked{o, b})
	d.mu.Unlock()
	if !known {
		if err := read(b); err != nil {
			return err
		}
	}
	it.n.flags |= flagLinked | flagDigested
	binary.NativeEndian.PutUint32(it.sum[:], place)
	return nil
}

// regular digests a regular file; st is its state if that is known already.
func (w *digestWorker) regular(it digestItem, st *unix.Stat_t) error {
	if it.n.flags&flagCopied != 0 {
		return w.copied(it, st)
	}
	see := func(st *unix.Stat_t) { it.n.seen, it.n.flags = knownState(st), it.n.flags&^flagPlain|flagKnown }
	index := w.d.o.Index
	if index != nil {
		if sum, ok := index.Lookup(fileID(st)); ok {
			see(st)
			it.n.flags |= flagPlain
			return w.emit(it, w.of(it, st), st, func(b *body) error { b.content = sum; return nil })
		}
	}
	fd, err := w.src.file(it.dir, it.name, it.path())
	if err != nil {
		return err
	}
	defer at.Close(fd)
	st = new(unix.Stat_t)
	if err := at.Stat(fd, st); err != nil {
		return fail("stat", it.path(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return changed(it.path())
	}
	see(st)
	return w.emit(it, w.of(it, st), st, func(b *body) error {
		if b.xattrs, err = listXattrs(fd); err != nil {
			return fail("digest", it.path(), err)
		}
		plain := len(b.xattrs) == 0
		if plain {
			it.n.flags |= flagPlain
		}
		// Asked before the content is read: who comes later changes the times.
		quiet := index != nil && plain && !writable(fd)
		if err := w.content(fd, st, it, b); err != nil {
			return err
		}
		if quiet {
			var after unix.Stat_t
			if at.Stat(fd, &after) == nil && fileID(&after) == fileID(st) {
				index.Remember(fileID(st), b.content)
			}
		}
		return nil
	})
}

// copied takes over what a Put with Hash has seen of the file.
func (w *digestWorker) copied(it digestItem, st *unix.Stat_t) error {
	n := it.n
	if n.seen != copiedState(st) {
		return changed(it.path())
	}
	if n.flags&flagDigested != 0 {
		// It was asked for with other options: the content has to be read.
		n.flags &^= flagCopied
		return w.regular(it, st)
	}
	content, attrs := *it.sum, w.d.attrs[n]
	if index := w.d.o.Index; index != nil && len(attrs) == 0 && n.flags&flagQuiet != 0 {
		index.Remember(fileID(st), content)
	}
	return w.emit(it, w.of(it, st), st, func(b *body) error {
		b.content, b.xattrs = content, attrs
		return nil
	})
}

// content hashes the file, which must hold as many bytes as st says.
func (w *digestWorker) content(fd int, st *unix.Stat_t, it digestItem, b *body) error {
	if w.hash == nil {
		w.hash, w.buf = sha256.New(), make([]byte, smallFile)
	}
	w.hash.Reset()
	// An empty file is not read at all: in procfs it might not be empty.
	for done := int64(0); st.Size > 0; {
		if done > 0 && w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		n, err := readFull(fd, w.buf, st.Size-done)
		if err != nil {
			return fail("read", it.path(), err)
		}
		w.hash.Write(w.buf[:n])
		if done += int64(n); done > st.Size || n < len(w.buf) {
			if done != st.Size {
				return changed(it.path())
			}
			break
		}
	}
	w.hash.Sum(b.content[:0])
	return nil
}

func fileID(st *unix.Stat_t) FileID {
	return FileID{
		Dev: st.Dev, Ino: st.Ino, Size: st.Size,
		MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(),
	}
}
