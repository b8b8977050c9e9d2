package copier

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// Index remembers digests of file contents by the identity that stat(2)
// gives, so that an unchanged file is not read again. Implementations decide
// what they trust; nil remembers nothing. Only files without extended
// attributes are remembered: a hit says that there are none. Both methods are
// called from several goroutines at once.
type Index interface {
	Lookup(FileID) (digest.Digest, bool)
	Remember(FileID, digest.Digest)
}

// FileID identifies one state of one file.
type FileID struct {
	Dev, Ino     uint64
	Size         int64
	MTime, CTime int64 // nanoseconds since the epoch
}

// FileDigest is one named part of a cache key: a path as it will lie below
// the destination, and a digest over its type, mode, owner (when kept), link
// target, device number, hard links, extended attributes and content. Times
// do not count. A directory source itself has the path "." and counts with its
// type only, since its content is what is copied.
type FileDigest struct {
	Path   string
	Digest digest.Digest
}

// DigestOptions says what counts and where contents may be known from.
type DigestOptions struct {
	KeepOwner bool
	Index     Index
}

// workers is how many goroutines read or write files at once. The work is
// bound by the kernel's file system code; two hide its latency without
// fighting over directory locks.
const workers = 2

// batchSize is how many files of a directory go to a worker at once. Two workers
// that create in one directory wait for its lock: larger batches keep them
// apart in most trees, smaller ones share a single large directory better.
const batchSize = 64

// Digests returns one entry per object, sorted by path. Each file is read
// once, or not at all if the index knows it. A Selection's methods are not to
// be called at the same time.
func (s *Selection) Digests(ctx context.Context, o DigestOptions) ([]FileDigest, error) {
	total := 0
	for i := range s.sources {
		total += s.sources[i].node.count()
	}
	d := &digester{
		o: o, out: make([]FileDigest, total), inodes: map[inode]*body{},
		pool: newPool[digestJob](ctx), src: sourceReader{sel: s},
	}
	d.pool.start(func() func(digestJob) error {
		w := &digestWorker{d: d, hash: sha256.New(), buf: make([]byte, 256<<10)}
		return w.job
	})
	err := d.walk(s)
	d.src.close()
	if err := d.pool.finish(err); err != nil {
		return nil, err
	}
	d.hardLinks()
	slices.SortStableFunc(d.out, func(a, b FileDigest) int { return strings.Compare(a.Path, b.Path) })
	return d.out, nil
}

func (n *node) count() int {
	c := 1
	for i := range n.kids {
		c += n.kids[i].count()
	}
	return c
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
	index  int // into out
	source int
	object object
	body   *body
}

type digester struct {
	o    DigestOptions
	out  []FileDigest
	next int
	pool *pool[digestJob]
	src  sourceReader

	mu     sync.Mutex
	inodes map[inode]*body
	linked []linked
}

// digestJob is some files of one directory.
type digestJob struct {
	dir    *sharedFD
	path   string // real path of dir, for messages
	source int
	items  []digestItem
}

type digestItem struct {
	n     *node
	name  string // in dir
	index int
}

func (j digestJob) release() { j.dir.release() }

// walk hands out all objects.
func (d *digester) walk(s *Selection) error {
	for i := range s.sources {
		src := &s.sources[i]
		if src.node.typ != unix.S_IFDIR {
			dir, parent, base, err := d.src.parent(src)
			if err != nil {
				return err
			}
			item := digestItem{&src.node, base, d.take(src.node.name)}
			if err := d.pool.send(digestJob{dir.retain(), parent, i, []digestItem{item}}); err != nil {
				return err
			}
			continue
		}
		fd, err := d.src.open(src.real)
		if err != nil {
			return err
		}
		top := d.take(".")
		d.out[top].Digest = object{typ: unix.S_IFDIR}.digest(nil)
		if err := d.dir(fd, src.real, "", i, &src.node, 0); err != nil {
			return err
		}
		if err := d.deep(i); err != nil {
			return err
		}
	}
	return nil
}

func (d *digester) take(path string) int {
	d.out[d.next].Path = path
	d.next++
	return d.next - 1
}

// deep works through what dir put off.
func (d *digester) deep(source int) error {
	for {
		p, ok := d.src.popDeep()
		if !ok {
			return nil
		}
		fd, err := d.src.open(p.real)
		if err != nil {
			return err
		}
		if err := d.dir(fd, p.real, p.rel, source, p.node, 0); err != nil {
			return err
		}
	}
}

// dir hands out what is in the directory fd, which it takes over.
func (d *digester) dir(fd int, real, rel string, source int, n *node, depth int) error {
	dir := newSharedFD(fd)
	defer dir.release()
	var items []digestItem
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		job := digestJob{dir.retain(), real, source, items}
		items = nil
		return d.pool.send(job)
	}
	for i := range n.kids {
		k := &n.kids[i]
		items = append(items, digestItem{k, k.name, d.take(join(rel, k.name))})
		if len(items) == batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	for i := range n.kids {
		k := &n.kids[i]
		if k.typ != unix.S_IFDIR || len(k.kids) == 0 {
			continue
		}
		childReal, childRel := join(real, k.name), join(rel, k.name)
		if depth+1 >= maxDepth {
			d.src.pushDeep(childReal, childRel, k)
			continue
		}
		sub, err := openSourceDir(fd, k.name, childReal)
		if err != nil {
			return err
		}
		if err := d.dir(sub, childReal, childRel, source, k, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// hardLinks finishes the objects that have several names. The first selected
// one, by source and path, is the file; the others are links to it.
func (d *digester) hardLinks() {
	slices.SortFunc(d.linked, func(a, b linked) int {
		return cmp.Or(cmp.Compare(a.source, b.source), strings.Compare(d.out[a.index].Path, d.out[b.index].Path))
	})
	first := map[*body]string{}
	for _, l := range d.linked {
		name := strconv.Itoa(l.source) + ":" + d.out[l.index].Path
		if f, ok := first[l.body]; ok {
			l.object.hardlink = f
		} else {
			first[l.body] = name
		}
		d.out[l.index].Digest = l.object.digest(l.body)
	}
}

// object is what counts of an object besides its body.
type object struct {
	typ, mode uint32
	owner     string // "uid:gid" when it counts
	rdev      uint64
	link      string
	hardlink  string
}

// digest encodes every field with its length, so that no two objects share an
// encoding. The first field is the version of the encoding.
func (o object) digest(b *body) digest.Digest {
	buf := make([]byte, 0, 256)
	field := func(s string) {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	field("strata file 1")
	buf = binary.AppendUvarint(buf, uint64(o.typ))
	buf = binary.AppendUvarint(buf, uint64(o.mode))
	field(o.owner)
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
	return hexDigest(sha256.Sum256(buf))
}

func hexDigest(sum [sha256.Size]byte) digest.Digest {
	var b [7 + 2*sha256.Size]byte
	copy(b[:], "sha256:")
	hex.Encode(b[7:], sum[:])
	return digest.Digest(b[:])
}

// digestWorker reads files, one after the other.
type digestWorker struct {
	d    *digester
	hash hash.Hash
	buf  []byte
}

func (w *digestWorker) job(j digestJob) error {
	for _, it := range j.items {
		if err := w.item(j, it); err != nil {
			return err
		}
	}
	return nil
}

func (w *digestWorker) item(j digestJob, it digestItem) error {
	name := join(j.path, it.name)
	var st unix.Stat_t
	if it.n.typ == unix.S_IFREG && w.d.o.Index == nil && it.n.copied == nil {
		return w.regular(j, it, name, nil)
	}
	if err := at.Lstat(j.dir.fd, it.name, &st); err != nil {
		return fail("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != it.n.typ {
		return changed(name)
	}
	switch it.n.typ {
	case unix.S_IFREG:
		return w.regular(j, it, name, &st)
	case unix.S_IFDIR:
		return w.directory(j, it, name, &st)
	}
	o := w.object(j, it, name, &st)
	if it.n.typ == unix.S_IFLNK {
		link, err := at.Readlink(j.dir.fd, it.name)
		if err != nil {
			return fail("read link", name, err)
		}
		o.link, o.mode = link, 0
	}
	return w.emit(j, it, o, &st, func(*body) error { return nil })
}

func (w *digestWorker) object(j digestJob, it digestItem, name string, st *unix.Stat_t) object {
	o := object{typ: st.Mode & unix.S_IFMT, mode: st.Mode & 0o7777}
	if o.typ == unix.S_IFCHR || o.typ == unix.S_IFBLK {
		o.rdev = st.Rdev
	}
	if w.d.o.KeepOwner {
		owner := w.d.src.sel.root.owner(j.dir.fd, it.name, name, st)
		o.owner = strconv.Itoa(owner.UID) + ":" + strconv.Itoa(owner.GID)
	}
	return o
}

func (w *digestWorker) directory(j digestJob, it digestItem, name string, st *unix.Stat_t) error {
	fd, err := openSourceDir(j.dir.fd, it.name, name)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	b := &body{}
	if b.xattrs, err = listXattrs(fd); err != nil {
		return fail("digest", name, err)
	}
	w.d.out[it.index].Digest = w.object(j, it, name, st).digest(b)
	return nil
}

// emit records an object, whose body is read by read unless another name of
// the same inode has led to it before.
func (w *digestWorker) emit(j digestJob, it digestItem, o object, st *unix.Stat_t, read func(*body) error) error {
	if st.Nlink <= 1 {
		var b body
		if err := read(&b); err != nil {
			return err
		}
		w.d.out[it.index].Digest = o.digest(&b)
		return nil
	}
	d, id := w.d, inode{st.Dev, st.Ino}
	d.mu.Lock()
	b, known := d.inodes[id]
	if !known {
		b = new(body)
		d.inodes[id] = b
	}
	d.linked = append(d.linked, linked{it.index, j.source, o, b})
	d.mu.Unlock()
	if known {
		return nil
	}
	return read(b)
}

// regular digests a regular file; st is its state if that is known already.
func (w *digestWorker) regular(j digestJob, it digestItem, name string, st *unix.Stat_t) error {
	see := func(st *unix.Stat_t) { it.n.size, it.n.mtime, it.n.known = st.Size, st.Mtim, true }
	index := w.d.o.Index
	if c := it.n.copied; c != nil {
		if c.id != fileID(st) {
			return changed(name)
		}
		if index != nil && len(c.xattrs) == 0 {
			index.Remember(c.id, hexDigest(c.sum))
		}
		return w.emit(j, it, w.object(j, it, name, st), st, func(b *body) error {
			b.content, b.xattrs = c.sum, c.xattrs
			return nil
		})
	}
	if index != nil {
		if dg, ok := index.Lookup(fileID(st)); ok {
			if sum, ok := parseDigest(dg); ok {
				see(st)
				it.n.plain = true
				return w.emit(j, it, w.object(j, it, name, st), st, func(b *body) error { b.content = sum; return nil })
			}
		}
	}
	fd, err := w.d.src.file(j.dir.fd, it.name, name)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	st = new(unix.Stat_t)
	if err := at.Stat(fd, st); err != nil {
		return fail("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return changed(name)
	}
	see(st)
	return w.emit(j, it, w.object(j, it, name, st), st, func(b *body) error {
		if b.xattrs, err = listXattrs(fd); err != nil {
			return fail("digest", name, err)
		}
		it.n.plain = len(b.xattrs) == 0
		if err := w.content(fd, st, name, b); err != nil {
			return err
		}
		if index != nil && it.n.plain {
			var after unix.Stat_t
			if at.Stat(fd, &after) == nil && fileID(&after) == fileID(st) {
				index.Remember(fileID(st), hexDigest(b.content))
			}
		}
		return nil
	})
}

// content hashes the file, which must hold as many bytes as st says.
func (w *digestWorker) content(fd int, st *unix.Stat_t, name string, b *body) error {
	w.hash.Reset()
	// An empty file is not read at all: in procfs it might not be empty.
	for done := int64(0); st.Size > 0; {
		if done > 0 && w.d.pool.ctx.Err() != nil {
			return context.Cause(w.d.pool.ctx)
		}
		n, err := readFull(fd, w.buf, st.Size-done)
		if err != nil {
			return fail("read", name, err)
		}
		w.hash.Write(w.buf[:n])
		if done += int64(n); done > st.Size || n < len(w.buf) {
			if done != st.Size {
				return changed(name)
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

func parseDigest(d digest.Digest) (sum [sha256.Size]byte, ok bool) {
	s, found := strings.CutPrefix(string(d), "sha256:")
	if !found || len(s) != 2*sha256.Size {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(s))
	return sum, err == nil
}
