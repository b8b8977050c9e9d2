package cache

import (
	"crypto/sha256"
	"io"
	"slices"
)

const (
	// runEntries is how many new entries stay in memory (2.4 MiB); more go to
	// the disk, as many at a time.
	runEntries   = 1 << 15
	chunkEntries = 1 << 12
)

// freshEntries are those that this process found out: the latest in memory,
// those before in sorted runs in a file without a name.
type freshEntries struct {
	// chunks hold entries as they came (a slice that grows would be copied
	// over and over), table says where they are.
	chunks [][]byte
	n      int
	table  []uint32 // open addressing by key: index + 1; 0 is empty

	file  *heldFile // of the runs
	size  int64     // of it
	runs  []*run    // the oldest first
	count int       // entries in memory and in runs
	full  bool      // no more are taken

	news bool // there are some that were not written
}

func (f *freshEntries) at(i int) []byte {
	i, c := i%chunkEntries, f.chunks[i/chunkEntries]
	return c[i*entrySize : (i+1)*entrySize]
}

func (k fileKey) hash() uint64 {
	h := (k.ino*0x9e3779b97f4a7c15 ^ k.dev) * 0xff51afd7ed558ccd
	return h ^ h>>32
}

// find returns the index of the entry in memory with the key, or -1, and its
// slot.
func (f *freshEntries) find(key fileKey) (i, slot int) {
	if len(f.table) == 0 {
		return -1, 0
	}
	mask := uint64(len(f.table) - 1)
	for s := key.hash() & mask; ; s = (s + 1) & mask {
		i := int(f.table[s]) - 1
		if i < 0 || keyOf(f.at(i)) == key {
			return i, int(s)
		}
	}
}

// get returns the newest entry with the key, or nil.
func (f *freshEntries) get(key fileKey) []byte {
	if i, _ := f.find(key); i >= 0 {
		return f.at(i)
	}
	for _, r := range slices.Backward(f.runs) {
		if e := r.get(key); e != nil {
			return e
		}
	}
	return nil
}

// put adds or replaces an entry. base is the cache's directory, for what does
// not stay in memory.
func (f *freshEntries) put(e []byte, base string) {
	key := keyOf(e)
	if i, _ := f.find(key); i >= 0 {
		copy(f.at(i), e)
		f.news = true
		return
	}
	if f.n == runEntries && !f.full && f.spill(base) != nil {
		f.full = true // what is not remembered is read again, no more
	}
	if f.full || f.count >= maxEntries {
		return
	}
	if 4*(f.n+1) > 3*len(f.table) {
		f.table = make([]uint32, max(64, 2*len(f.table)))
		for i := range f.n {
			_, slot := f.find(keyOf(f.at(i)))
			f.table[slot] = uint32(i) + 1
		}
	}
	c := f.n / chunkEntries
	if c == len(f.chunks) {
		size := chunkEntries
		if f.n == 0 {
			size = 16 // most builds find out little
		}
		f.chunks = append(f.chunks, make([]byte, 0, size*entrySize))
	}
	f.chunks[c] = append(f.chunks[c], e...)
	_, slot := f.find(key)
	f.table[slot] = uint32(f.n) + 1
	f.n++
	f.count++
	f.news = true
}

// sorted are the indexes of the entries in memory in the order of their keys.
func (f *freshEntries) sorted() []uint32 {
	list := make([]uint32, f.n)
	for i := range list {
		list[i] = uint32(i)
	}
	slices.SortFunc(list, func(a, b uint32) int { return keyOf(f.at(int(a))).compare(keyOf(f.at(int(b)))) })
	return list
}

// spill makes a run of the entries in memory.
func (f *freshEntries) spill(base string) (err error) {
	if f.file == nil {
		if f.file, err = unnamedFile(base); err != nil {
			return err
		}
	}
	r := &run{}
	w := newListWriter(io.NewOffsetWriter(f.file, f.size))
	for _, i := range f.sorted() {
		e := f.at(int(i))
		r.last = keyOf(e)
		r.filter.add(r.last)
		if err := w.add(e, 0); err != nil {
			return err
		}
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	r.list = newEntryList(f.file, f.size, w.n, w.marks, cachedOfRun)
	f.runs = append(f.runs, r)
	f.size += int64(w.n) * entrySize
	for i := range f.chunks {
		f.chunks[i] = f.chunks[i][:0]
	}
	f.n = 0
	clear(f.table)
	return nil
}

// run is a sorted part of the new entries, on the disk.
type run struct {
	list   *entryList
	last   fileKey // the greatest
	near   int     // where the last look-up ended
	filter keyFilter
}

// get returns the entry with the key, or nil.
func (r *run) get(key fileKey) []byte {
	if key.compare(r.list.marks[0].first) < 0 || key.compare(r.last) > 0 || !r.filter.mayHave(key) {
		return nil
	}
	e, place := r.list.find(key, r.near)
	if e != nil {
		r.near = place + 1
	}
	return e
}

// keyFilter tells most keys that are not in a run (a Bloom filter: 16 bits an
// entry, 4 of them set; it errs for one key of 400).
type keyFilter [16 * runEntries / 64]uint64

const filterBits = 64 * uint64(len(keyFilter{}))

func (f *keyFilter) add(key fileKey) {
	h := key.hash()
	step := h>>32 | 1
	for range 4 {
		b := h % filterBits
		f[b/64] |= 1 << (b % 64)
		h += step
	}
}

func (f *keyFilter) mayHave(key fileKey) bool {
	h := key.hash()
	step := h>>32 | 1
	for range 4 {
		b := h % filterBits
		if f[b/64]&(1<<(b%64)) == 0 {
			return false
		}
		h += step
	}
	return true
}

// content is the digest in an encoded entry.
func content(e []byte) [sha256.Size]byte { return [sha256.Size]byte(e[idSize:]) }
