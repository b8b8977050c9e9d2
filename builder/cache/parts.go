package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
)

// Parts of a record, one after the other:
//
//	uvarint  how many bytes the name shares with the name before
//	uvarint  length of the rest of the name; the rest
//	uvarint  0: a sha256 digest follows, 32 bytes
//	         n: a value of n-1 bytes follows
//
// Sorted paths and binary digests make this as small as a compressor would
// (45 bytes a file), at a hundredth of the time.
const (
	maxPartsLen = 64 << 20
	// maxPartsText bounds names and values as they are in memory, because a
	// shared beginning costs nothing in the file.
	maxPartsText = 256 << 20
)

var errParts = errors.New("malformed key parts")

const sha256Prefix = "sha256:"

// partsEncoder encodes parts, as many as fit.
type partsEncoder struct {
	out        func(part []byte) error
	last, part []byte // the name before; the part at hand
	text, size int    // of what was encoded: in memory, in the file
	kept       int
	full       bool
}

// key encodes the parts of a key.
func (e *partsEncoder) key(k *Key) error {
	for i := range k.items {
		it := &k.items[i]
		if it.files == nil {
			if err := e.add(it.Name, nil, it.Value, nil); err != nil {
				return err
			}
			continue
		}
		var err error
		it.files.Each(func(path []byte, sum *[sha256.Size]byte) bool {
			err = e.add(it.Name, path, "", sum)
			return err == nil && !e.full
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// add encodes one part, whose name is prefix and rest, and whose value is a
// sha256 digest when sum is given.
func (e *partsEncoder) add(prefix string, rest []byte, value string, sum *[sha256.Size]byte) error {
	name, valueLen := len(prefix)+len(rest), len(value)
	if sum != nil {
		valueLen = len(sha256Prefix) + 2*sha256.Size
	}
	e.text += name + valueLen
	if e.full = e.full || e.text > maxPartsText || e.size+name+valueLen+3*binary.MaxVarintLen32 > maxPartsLen; e.full {
		return nil
	}
	shared := sharedLen(e.last, prefix)
	if shared == len(prefix) {
		shared += sharedLen(e.last[shared:], rest)
	}
	e.last = append(append(e.last[:0], prefix...), rest...)
	e.part = binary.AppendUvarint(e.part[:0], uint64(shared))
	e.part = binary.AppendUvarint(e.part, uint64(name-shared))
	e.part = append(e.part, e.last[shared:]...)
	if sum != nil {
		e.part = append(append(e.part, 0), sum[:]...)
	} else {
		e.part = appendValue(e.part, value)
	}
	e.kept++
	e.size += len(e.part)
	return e.out(e.part)
}

// sharedLen is how many bytes a and b begin with alike.
func sharedLen[B string | []byte](a []byte, b B) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func appendValue(body []byte, v string) []byte {
	if sum, ok := parseSHA256(v); ok {
		body = append(body, 0)
		return append(body, sum[:]...)
	}
	body = binary.AppendUvarint(body, uint64(len(v))+1)
	return append(body, v...)
}

// parseSHA256 reads "sha256:" and 64 lower-case hex digits, the one spelling
// that hex.EncodeToString gives back.
func parseSHA256(v string) (sum [32]byte, ok bool) {
	if len(v) != len(sha256Prefix)+64 || !strings.HasPrefix(v, sha256Prefix) {
		return sum, false
	}
	text := v[len(sha256Prefix):]
	if strings.ContainsAny(text, "ABCDEF") {
		return sum, false
	}
	var in [2 * len(sum)]byte
	copy(in[:], text)
	_, err := hex.Decode(sum[:], in[:])
	return sum, err == nil
}

// decodeParts is the inverse; count is the number of parts there must be.
func decodeParts(body []byte, count uint32) ([]Part, error) {
	if uint64(count)*3 > uint64(len(body)) { // a part takes three bytes or more
		return nil, errParts
	}
	// Texts are gathered in one buffer, and cut from one string at the end.
	type span struct{ name, nameEnd, value int }
	spans := make([]span, 0, count)
	text := make([]byte, 0, min(len(body)*3, maxPartsText))
	nameAt, nameLen := 0, 0
	for range count {
		shared, n := binary.Uvarint(body)
		if n <= 0 || shared > uint64(nameLen) {
			return nil, errParts
		}
		body = body[n:]
		rest, body2, ok := takeBytes(body)
		if !ok || len(text)+int(shared)+len(rest) > maxPartsText {
			return nil, errParts
		}
		body = body2
		s := span{name: len(text)}
		text = append(text, text[nameAt:nameAt+int(shared)]...)
		text = append(text, rest...)
		nameAt, nameLen = s.name, len(text)-s.name
		s.nameEnd = len(text)
		if text, body, ok = takeValue(text, body); !ok {
			return nil, errParts
		}
		s.value = len(text)
		spans = append(spans, s)
	}
	if len(body) > 0 {
		return nil, errParts
	}
	all := string(text)
	parts := make([]Part, len(spans))
	for i, s := range spans {
		parts[i] = Part{all[s.name:s.nameEnd], all[s.nameEnd:s.value]}
	}
	return parts, nil
}

// takeBytes takes a length and as many bytes.
func takeBytes(b []byte) (v, rest []byte, ok bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}

// takeValue appends the value that b starts with to text.
func takeValue(text, b []byte) (newText, rest []byte, ok bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 {
		return text, nil, false
	}
	b = b[n:]
	if length == 0 {
		if len(b) < 32 || len(text)+len(sha256Prefix)+64 > maxPartsText {
			return text, nil, false
		}
		text = append(text, sha256Prefix...)
		return hex.AppendEncode(text, b[:32]), b[32:], true
	}
	length--
	if length > uint64(len(b)) || uint64(len(text))+length > maxPartsText {
		return text, nil, false
	}
	return append(text, b[:length]...), b[length:], true
}
