package cache

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// merged goes through several lists of entries in one order. Nothing of it is
// held in memory but what is read at once.
type merged struct {
	d      *indexData
	others *entryList
	fresh  []uint32 // sorted: those in memory
	oldest uint8    // age that is left out
}

// merge prepares the list that is written: what is fresh, what was known and
// used, and the rest for a while.
func (d *indexData) merge(others *entryList) *merged {
	m := &merged{d: d, others: others, fresh: d.fresh.sorted(), oldest: maxAge + 1}
	if d.fresh.count+d.old.n+others.n < maxEntries {
		return m
	}
	// Full: new files would never get in. What was not used goes, the older
	// first.
	var ages [maxAge + 2]int
	_ = m.each(func(_ []byte, age uint8) error { ages[age]++; return nil })
	count := func() (n int) {
		for age, c := range ages {
			if age == 0 || age < int(m.oldest) {
				n += c
			}
		}
		return n
	}
	for m.oldest > 0 && count() >= maxEntries {
		m.oldest /= 2
	}
	return m
}

// older is the age of an entry that is read once more.
func older(e []byte) uint8 { return min(e[ageAt], maxAge) + 1 }

// part is one of the lists, at its next entry.
type part struct {
	key  fileKey
	e    []byte // nil: it has ended
	next func() []byte
}

func (p *part) advance() {
	if p.e = p.next(); p.e != nil {
		p.key = keyOf(p.e)
	}
}

// each calls f with the entries in order, until it fails. e is good until it
// returns. Of one file the latest fresh entry counts, then our own, then
// another's.
func (m *merged) each(f func(e []byte, age uint8) error) error {
	d := m.d
	old, others := listReader{l: d.old}, listReader{l: m.others}
	k := 0
	parts := []part{{next: func() []byte {
		if k == len(m.fresh) {
			return nil
		}
		k++
		return d.fresh.at(int(m.fresh[k-1]))
	}}}
	for i := len(d.fresh.runs) - 1; i >= 0; i-- {
		r := &listReader{l: d.fresh.runs[i].list}
		parts = append(parts, part{next: r.entry})
	}
	known := len(parts)
	parts = append(parts, part{next: old.entry}, part{next: others.entry})
	for i := range parts {
		parts[i].advance()
	}
	for {
		best := -1
		for i := range parts {
			if parts[i].e != nil && (best < 0 || parts[i].key.compare(parts[best].key) < 0) {
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		e, key := parts[best].e, parts[best].key
		age := uint8(0)
		if best > known || best == known && !d.isUsed(old.place-1) {
			age = older(e)
		}
		if age == 0 || age < m.oldest {
			if err := f(e, age); err != nil {
				return err
			}
		}
		for i := range parts {
			if parts[i].e != nil && parts[i].key == key {
				parts[i].advance()
			}
		}
	}
}

// write writes the file.
func (m *merged) write(fd int) error {
	if _, err := (writerAt(fd)).WriteAt(make([]byte, indexHead), 0); err != nil {
		return err
	}
	w := newListWriter(io.NewOffsetWriter(writerAt(fd), indexHead))
	err := m.each(func(e []byte, age uint8) error {
		if w.n == maxEntries {
			return nil
		}
		return w.add(e, age)
	})
	if err != nil {
		return err
	}
	head := append(make([]byte, 0, indexHead), indexMagic...)
	head = binary.LittleEndian.AppendUint32(head, uint32(w.n))
	sum := crc32.Checksum(head, castagnoli)
	var b [markSize]byte
	for _, k := range w.marks {
		binary.BigEndian.PutUint64(b[:], k.first.dev)
		binary.BigEndian.PutUint64(b[8:], k.first.ino)
		binary.LittleEndian.PutUint32(b[16:], k.crc)
		sum = crc32.Update(sum, castagnoli, b[:])
		if _, err := w.out.Write(b[:]); err != nil {
			return err
		}
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	_, err = writerAt(fd).WriteAt(binary.LittleEndian.AppendUint32(head, sum), 0)
	return err
}
