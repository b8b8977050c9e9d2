package layer

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The tar-split record of a stream is one JSON object a line: a segment (type
// 2) with the header's bytes, padding of the content before it first, then
// the file (type 1) with name, size and checksum; content itself is read from
// the layer when the stream is put together again. See
// github.com/vbatts/tar-split, tar/storage.Entry.

// appendSegment appends the line of a segment.
func appendSegment(b, raw []byte, position int) []byte {
	b = append(b, `{"type":2,"payload":"`...)
	b = base64.StdEncoding.AppendEncode(b, raw)
	b = append(b, `","position":`...)
	b = strconv.AppendInt(b, int64(position), 10)
	return append(b, "}\n"...)
}

// appendFile appends the line of a file; names that are not UTF-8 go into
// name_raw.
func appendFile(b []byte, name string, size int64, crc uint64, position int) []byte {
	b = append(b, `{"type":1,`...)
	switch {
	case bare(name):
		b = append(b, `"name":"`...)
		b = append(b, name...)
		b = append(b, '"')
	case utf8.ValidString(name):
		quoted, _ := json.Marshal(name) // a string always can be
		b = append(b, `"name":`...)
		b = append(b, quoted...)
	default:
		b = append(b, `"name_raw":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(name))
		b = append(b, '"')
	}
	if size > 0 {
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, size, 10)
		var sum [8]byte
		binary.BigEndian.PutUint64(sum[:], crc)
		b = append(b, `,"payload":"`...)
		b = base64.StdEncoding.AppendEncode(b, sum[:])
		b = append(b, `","position":`...)
	} else {
		b = append(b, `,"payload":null,"position":`...)
	}
	b = strconv.AppendInt(b, int64(position), 10)
	return append(b, "}\n"...)
}

// bare reports whether s is a JSON string as it stands.
func bare(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// splitInMemory is how much of a tar-split record stays in memory; layers of
// some 40,000 files are below it.
const splitInMemory = 32 << 20

// splitFile takes the record: a memory file, which becomes one without a name
// on the disk of the scratch directory when it grows.
type splitFile struct {
	f      *os.File
	n      int
	dir    *os.File
	onDisk bool
}

func newSplitFile(dir *os.File) (*splitFile, error) {
	fd, err := unix.MemfdCreate("tar-split", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("tar-split: memfd_create: %w", err)
	}
	return &splitFile{f: os.NewFile(uintptr(fd), "tar-split"), dir: dir}, nil
}

func (s *splitFile) Write(p []byte) (int, error) {
	if !s.onDisk && s.n+len(p) > splitInMemory {
		s.onDisk = true // tried once; a file system without O_TMPFILE stays in memory
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	n, err := s.f.Write(p)
	s.n += n
	return n, err
}

func (s *splitFile) spill() error {
	if s.dir == nil {
		return nil
	}
	fd, err := unix.Openat(int(s.dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil //nolint:nilerr // see Write
	}
	disk := os.NewFile(uintptr(fd), "tar-split")
	if _, err := s.f.Seek(0, 0); err != nil {
		disk.Close()
		return err
	}
	if _, err := disk.ReadFrom(s.f); err != nil {
		disk.Close()
		return fmt.Errorf("tar-split: %w", err)
	}
	s.f.Close()
	s.f = disk
	return nil
}
