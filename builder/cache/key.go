package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// Names of parts that Explain has its own words for. Other parts may have any
// name that reads well in `NAME was "x", is now "y"`.
const (
	// PartBase is the digest or ID of the image that the stage starts from.
	PartBase = "base image"
	// PartParent is the result (layer or key) of the previous step.
	PartParent = "parent"
	// PartInstruction is the instruction: its keyword, or its whole text.
	PartInstruction = "instruction"
	// PartCommand is what a RUN executes.
	PartCommand = "command"
	// PartDestination is where a COPY or ADD puts things.
	PartDestination = "destination"
	// PartFrom tells where a COPY takes things from, in a key that looks at
	// no file: such a key is compared with its like only.
	PartFrom = "from"
	// PartVariable precedes the name of a variable: "variable FOO".
	PartVariable = "variable "
	// PartFile precedes the path of a file: "file src/main.go".
	PartFile = "file "
)

// Key is a list of named parts in the order they were added. The zero Key is
// ready for use. A Key is not safe for concurrent use, and is copied with
// Clone only.
type Key struct {
	items []item
	// sum is the digest of the first summed items; items only grow, so it is
	// valid while their number is the same. It spares the second and third
	// hashing of a COPY of many files.
	sum    [sha256.Size]byte
	summed int
}

// item is one part, or those of many files.
type item struct {
	Part
	files Files // Part.Name precedes each path; nil for one part
}

// Part is one named part. Values may be long (an instruction) but not
// secret: they are kept on disk.
type Part struct {
	Name  string `json:"n"`
	Value string `json:"v"`
}

// Files are the files that a key depends on (copier.Digests). They must not
// change any more.
type Files interface {
	Len() int
	// Each goes through the files until yield returns false. path may be used
	// until then only.
	Each(yield func(path []byte, sum *[sha256.Size]byte) bool)
}

// Add appends a part.
func (k *Key) Add(name, value string) { k.items = append(k.items, item{Part: Part{name, value}}) }

// AddFiles appends one part a file, named as prefix and its path say; prefix is
// PartFile for those of a COPY. The files are gone through whenever the parts
// are needed: a million of them cost the key nothing.
func (k *Key) AddFiles(prefix string, files Files) {
	if files.Len() > 0 {
		k.items = append(k.items, item{Part: Part{Name: prefix}, files: files})
	}
}

// Append appends the parts of another key.
func (k *Key) Append(other *Key) { k.items = append(k.items, other.items...) }

// Parts lists all parts, which takes much memory where there are many files.
func (k *Key) Parts() []Part {
	n := 0
	for i := range k.items {
		if n++; k.items[i].files != nil {
			n += k.items[i].files.Len() - 1
		}
	}
	parts := make([]Part, 0, n)
	for i := range k.items {
		it := &k.items[i]
		if it.files == nil {
			parts = append(parts, it.Part)
			continue
		}
		it.files.Each(func(path []byte, sum *[sha256.Size]byte) bool {
			parts = append(parts, Part{it.Name + string(path), sha256Prefix + hex.EncodeToString(sum[:])})
			return true
		})
	}
	return parts
}

// Clone returns a key with the same parts that grows independently of k.
func (k *Key) Clone() *Key {
	c := *k
	c.items = append(make([]item, 0, len(k.items)+8), k.items...)
	return &c
}

// Digest is injective over the list of parts (lengths are part of it).
func (k *Key) Digest() digest.Digest {
	sum := k.id()
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
}

// keyDomain keeps digests of keys apart from digests of anything else, and
// of keys made by an older way of counting.
const keyDomain = "strata cache key 1\n"

// id is Digest in binary.
func (k *Key) id() [sha256.Size]byte {
	if k.summed > 0 && k.summed == len(k.items) {
		return k.sum
	}
	h := newFieldHash(keyDomain)
	for i := range k.items {
		it := &k.items[i]
		if it.files == nil {
			h.field(it.Name)
			h.field(it.Value)
			continue
		}
		it.files.Each(func(path []byte, sum *[sha256.Size]byte) bool {
			h.file(it.Name, path, sum)
			return true
		})
	}
	k.sum, k.summed = h.sum(), len(k.items)
	return k.sum
}

// text tells steps of one build apart by what is written in them, whatever
// they depend on: it finds a step again when lines were inserted above it.
// It is "" when the key does not say.
func (k *Key) text() string {
	text := ""
	for i := range k.items {
		if k.items[i].files == nil {
			text = addText(text, &k.items[i].Part)
		}
	}
	return text
}

func addText(text string, p *Part) string {
	switch p.Name {
	case PartInstruction, PartCommand, PartDestination:
		return text + p.Name + "\x00" + p.Value + "\x00"
	case PartFrom:
		return text + p.Name + "\x00"
	}
	return text
}

// fieldHash hashes a sequence of strings, each preceded by its length, so
// that no two sequences give the same stream.
type fieldHash struct {
	h   hash.Hash
	buf []byte
}

func newFieldHash(domain string) *fieldHash {
	f := &fieldHash{h: sha256.New(), buf: make([]byte, 0, 4<<10)}
	f.buf = append(f.buf, domain...)
	return f
}

func (f *fieldHash) field(s string) {
	if len(f.buf)+binary.MaxVarintLen64+len(s) > cap(f.buf) {
		f.h.Write(f.buf)
		f.buf = f.buf[:0]
	}
	f.buf = binary.AppendUvarint(f.buf, uint64(len(s)))
	if len(s) > cap(f.buf)-len(f.buf) {
		f.h.Write(f.buf)
		f.buf = f.buf[:0]
		_, _ = io.WriteString(f.h, s) // a hash never fails
		return
	}
	f.buf = append(f.buf, s...)
}

// file is the name and the digest of a file, as two fields.
func (f *fieldHash) file(prefix string, path []byte, sum *[sha256.Size]byte) {
	const valueLen = len(sha256Prefix) + 2*sha256.Size
	if len(f.buf)+2*binary.MaxVarintLen64+len(prefix)+len(path)+valueLen > cap(f.buf) {
		f.h.Write(f.buf)
		f.buf = f.buf[:0]
	}
	// A path that is longer than the buffer makes it grow.
	f.buf = binary.AppendUvarint(f.buf, uint64(len(prefix)+len(path)))
	f.buf = append(append(f.buf, prefix...), path...)
	f.buf = binary.AppendUvarint(f.buf, uint64(valueLen))
	f.buf = append(f.buf, sha256Prefix...)
	f.buf = hex.AppendEncode(f.buf, sum[:])
}

func (f *fieldHash) sum() (sum [sha256.Size]byte) {
	f.h.Write(f.buf)
	f.h.Sum(sum[:0])
	return sum
}
