package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"time"
)

// entry is one member of the tar stream.
type entry struct {
	name string // as in the stream: directories end with a slash
	base string // name in dir
	dir  *dirHandle

	typ      byte // a tar.Type...
	open     bool // a regular file: content and attributes are to be read
	size     int64
	mode     int64 // permission, setuid, setgid and sticky bits
	uid, gid int64
	mtime    int64 // seconds
	major    int64
	minor    int64
	link     string // target of a symbolic or hard link
	xattrs   []xattr

	pad int // zero bytes due before the header, for the content before it
}

type xattr struct{ name, value string }

const (
	blockSize = 512
	maxOctal7 = 1<<21 - 1 // seven octal digits
	maxOctal  = 1<<33 - 1 // eleven octal digits
)

// appendHeader appends the member's header blocks: byte for byte what
// archive/tar writes, and with it containers/storage. The plain ustar header
// that nearly every file has is made here; archive/tar makes the others.
func (e *entry) appendHeader(b []byte) ([]byte, error) {
	if !e.plain() {
		return e.appendExtended(b)
	}
	at := len(b)
	b = append(b, zeroes[:blockSize]...)
	h := b[at : at+blockSize]
	copy(h, e.name)
	octal(h[100:107], e.mode)
	octal(h[108:115], e.uid)
	octal(h[116:123], e.gid)
	octal(h[124:135], e.size)
	octal(h[136:147], e.mtime)
	h[156] = e.typ
	copy(h[157:], e.link)
	copy(h[257:], "ustar\x0000")
	octal(h[329:336], e.major)
	octal(h[337:344], e.minor)
	sum := int64(8 * ' ') // the checksum's own field counts as blanks
	for _, c := range h {
		sum += int64(c)
	}
	octal(h[148:154], sum)
	h[155] = ' '
	return b, nil
}

// plain reports whether the fields fit the first 512 bytes.
func (e *entry) plain() bool {
	return len(e.xattrs) == 0 &&
		len(e.name) <= 100 && len(e.link) <= 100 && ascii(e.name) && ascii(e.link) &&
		e.uid <= maxOctal7 && e.gid <= maxOctal7 && e.size <= maxOctal &&
		e.mtime >= 0 && e.mtime <= maxOctal && e.major <= maxOctal7 && e.minor <= maxOctal7
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// octal fills b with the digits of v; the byte behind b stays NUL.
func octal(b []byte, v int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(v&7)
		v >>= 3
	}
}

func (e *entry) appendExtended(b []byte) ([]byte, error) {
	h := tar.Header{
		Typeflag: e.typ, Name: e.name, Linkname: e.link, Size: e.size, Mode: e.mode,
		Uid: int(e.uid), Gid: int(e.gid), ModTime: time.Unix(e.mtime, 0),
		Devmajor: e.major, Devminor: e.minor,
	}
	if len(e.xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(e.xattrs))
		for _, x := range e.xattrs {
			h.PAXRecords["SCHILY.xattr."+x.name] = x.value
		}
	}
	w := bytes.NewBuffer(b)
	if err := tar.NewWriter(w).WriteHeader(&h); err != nil {
		return b, fmt.Errorf("%q cannot be stored in a tar archive: %w", e.name, err)
	}
	return w.Bytes(), nil
}

var zeroes [2 * blockSize]byte

// padding returns the number of zero bytes behind size bytes of content.
func padding(size int64) int { return int(-size & (blockSize - 1)) }
