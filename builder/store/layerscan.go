package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"time"
)

var errLayerList = errors.New("not a list of layers as the library writes it")

// scanLayers finds in a list of layers (JSON) what an index holds. It knows
// as much of JSON as is needed to pass what it does not look at; anything
// odd is an error, and the library is asked instead.
func scanLayers(b []byte) (layerEntries, error) {
	s := jsonScan{b: b}
	if !s.take('[') {
		return nil, errLayerList
	}
	var out layerEntries
	if s.take(']') {
		return out, s.end()
	}
	for {
		e, ok, err := s.layer()
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, e[:]...)
		}
		if s.take(',') {
			continue
		}
		if !s.take(']') {
			return nil, errLayerList
		}
		return out, s.end()
	}
}

// layer reads one object; it is not ok when the index has no place for it.
func (s *jsonScan) layer() (e [layerEntrySize]byte, ok bool, err error) {
	if !s.take('{') {
		return e, false, errLayerList
	}
	ok = true
	id := false
	for !s.take('}') {
		key, err := s.text()
		if err != nil || !s.take(':') {
			return e, false, errLayerList
		}
		value, err := s.value()
		if err != nil {
			return e, false, err
		}
		fits := true
		switch string(key) {
		case "id":
			id = hexInto(e[:32], unquote(value))
		case "parent":
			if text := unquote(value); len(text) > 0 {
				fits = hexInto(e[32:64], text)
				e[layerEntrySize-1] |= layerHasParent
			}
		case "diff-digest":
			if text := unquote(value); len(text) > 0 {
				text, sha := bytes.CutPrefix(text, []byte("sha256:"))
				fits = sha && hexInto(e[64:96], text)
				e[layerEntrySize-1] |= layerHasDiff
			}
		case "diff-size":
			n, err := strconv.ParseInt(string(value), 10, 64)
			fits = err == nil
			binary.LittleEndian.PutUint64(e[96:], uint64(n))
		case "created":
			t, err := time.Parse(time.RFC3339Nano, string(unquote(value)))
			fits = err == nil && t.Year() >= 1678 && t.Year() < 2262 // the range of nanoseconds
			binary.LittleEndian.PutUint64(e[104:], uint64(t.UnixNano()))
		case "uidmap", "gidmap":
			if len(value) > 2 && value[0] == '[' {
				e[layerEntrySize-1] |= layerMapped
			}
		case "flags":
			if bytes.Contains(value, []byte("incomplete")) {
				return e, false, errors.New("an incomplete layer")
			}
		}
		ok = ok && fits
		if !s.take(',') && (s.i >= len(s.b) || s.b[s.i] != '}') {
			return e, false, errLayerList
		}
	}
	return e, ok && id, nil
}

func hexInto(to, text []byte) bool {
	if len(text) != 2*len(to) {
		return false
	}
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(to, text)
	return err == nil
}

// unquote is the text of a value that is a plain string, else the value, which
// then is none of what is looked for.
func unquote(value []byte) []byte {
	if len(value) >= 2 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	return value
}

// jsonScan goes through JSON text.
type jsonScan struct {
	b []byte
	i int
}

func (s *jsonScan) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// take passes the character if it is next, and the space behind it.
func (s *jsonScan) take(c byte) bool {
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	s.space()
	return true
}

func (s *jsonScan) end() error {
	if s.space(); s.i != len(s.b) {
		return errLayerList
	}
	return nil
}

// text passes a string, and returns what is between its quotes. A key with
// escapes is not one that is looked for.
func (s *jsonScan) text() ([]byte, error) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return nil, errLayerList
	}
	start := s.i + 1
	for i := start; ; i++ {
		n := bytes.IndexAny(s.b[i:], `"\`)
		if n < 0 {
			return nil, errLayerList
		}
		if i += n; s.b[i] == '"' {
			s.i = i + 1
			return s.b[start:i], nil
		}
		i++ // what is escaped
		if i >= len(s.b) {
			return nil, errLayerList
		}
	}
}

// value passes a value of any kind.
func (s *jsonScan) value() ([]byte, error) {
	start, depth := s.i, 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if _, err := s.text(); err != nil {
				return nil, err
			}
			if depth == 0 {
				return s.b[start:s.i], nil
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return bytes.TrimRight(s.b[start:s.i], " \t\r\n"), nil
			}
			if depth--; depth == 0 {
				s.i++
				return s.b[start:s.i], nil
			}
		case ',':
			if depth == 0 {
				return bytes.TrimRight(s.b[start:s.i], " \t\r\n"), nil
			}
		}
		s.i++
	}
	return nil, errLayerList
}
