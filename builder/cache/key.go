package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/copier"
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
	parts []Part
	// sum is the digest of the first summed parts; parts only grow, so it is
	// valid while their number is the same. It spares the second and third
	// hashing of a COPY of many files.
	sum    [sha256.Size]byte
	summed int
}

// Part is one named part. Values may be long (an instruction) but not
// secret: they are kept on disk.
type Part struct {
	Name  string `json:"n"`
	Value string `json:"v"`
}

// Add appends a part.
func (k *Key) Add(name, value string) { k.parts = append(k.parts, Part{name, value}) }

// AddFiles appends one part a file, named "file PATH".
func (k *Key) AddFiles(files []copier.FileDigest) {
	size := 0
	for i := range files {
		size += len(PartFile) + len(files[i].Path)
	}
	// One string holds all names: an allocation a file would cost more than
	// the rest of this function.
	var names strings.Builder
	names.Grow(size)
	for i := range files {
		names.WriteString(PartFile)
		names.WriteString(files[i].Path)
	}
	if need := len(k.parts) + len(files); need > cap(k.parts) {
		k.parts = append(make([]Part, 0, need), k.parts...)
	}
	rest := names.String()
	for i := range files {
		n := len(PartFile) + len(files[i].Path)
		k.parts = append(k.parts, Part{rest[:n], string(files[i].Digest)})
		rest = rest[n:]
	}
}

// Parts returns the parts, which stay the key's.
func (k *Key) Parts() []Part { return k.parts }

// Clone returns a key with the same parts that grows independently of k.
func (k *Key) Clone() *Key {
	c := *k
	c.parts = append(make([]Part, 0, len(k.parts)+8), k.parts...)
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
	if k.summed > 0 && k.summed == len(k.parts) {
		return k.sum
	}
	h := newFieldHash(keyDomain)
	for i := range k.parts {
		h.field(k.parts[i].Name)
		h.field(k.parts[i].Value)
	}
	k.sum, k.summed = h.sum(), len(k.parts)
	return k.sum
}

// text tells steps of one build apart by what is written in them, whatever
// they depend on: it finds a step again when lines were inserted above it.
// It is "" when the key does not say.
func (k *Key) text() string {
	text := ""
	for i := range k.parts {
		switch p := &k.parts[i]; p.Name {
		case PartInstruction, PartCommand, PartDestination:
			text += p.Name + "\x00" + p.Value + "\x00"
		case PartFrom:
			text += p.Name + "\x00"
		}
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

func (f *fieldHash) sum() (sum [sha256.Size]byte) {
	f.h.Write(f.buf)
	f.h.Sum(sum[:0])
	return sum
}
