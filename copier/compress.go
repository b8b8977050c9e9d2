package copier

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compression is a format told by the first bytes of a stream.
type compression int

const (
	compressNone compression = iota
	compressGzip
	compressBzip2
	compressXz
	compressZstd
)

func (c compression) String() string {
	return [...]string{"uncompressed", "gzip", "bzip2", "xz", "zstd"}[c]
}

// blockSize is tar's.
const blockSize = 512

// maxWindow bounds the memory that a zstd frame may ask for; 128 MiB is what
// --long=27 makes, the most that zstd itself reads unasked.
const maxWindow = 128 << 20

func detect(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return compressGzip
	case len(head) > 10 && bytes.HasPrefix(head, []byte("BZh")) && head[3] >= '1' && head[3] <= '9' &&
		bytes.Equal(head[4:10], []byte{0x31, 0x41, 0x59, 0x26, 0x53, 0x59}):
		return compressBzip2
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return compressXz
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return compressZstd
	}
	return compressNone
}

// decompress returns the stream behind r, which starts with head. Everything is
// decoded in this process: no program of the host or of an image runs
// (CVE-2014-9357, CVE-2026-41567).
func decompress(r io.Reader, c compression) (rc io.ReadCloser, err error) {
	defer func() {
		if p := recover(); p != nil {
			rc, err = nil, fmt.Errorf("malformed compressed data (%v)", p)
		}
	}()
	switch c {
	case compressGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z, nil
	case compressBzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case compressXz:
		z, err := xz.NewReader(bufio.NewReader(&xzGuard{r: r}))
		if err != nil {
			return nil, err
		}
		return io.NopCloser(z), nil
	case compressZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// IsArchive reports whether head, the first 512 bytes or more of a file,
// starts a tar stream that Extract can read (compressed ones are looked into).
// A compressed head too short to hold a first block is taken for one: bzip2
// gives nothing before 900 kB.
func IsArchive(head []byte) bool {
	ok, sure := sniff(bytes.NewReader(head))
	return ok || !sure
}

// sniff reads the first tar header of a stream. It is not sure when a
// compressed stream breaks off before that.
func sniff(r io.Reader) (ok, sure bool) {
	b := bufio.NewReaderSize(r, 4096)
	head, _ := b.Peek(16)
	z, err := decompress(b, detect(head))
	if err != nil {
		return false, !errors.Is(err, io.ErrUnexpectedEOF)
	}
	defer z.Close()
	var block [blockSize]byte
	n, err := fill(z, block[:])
	if n < blockSize {
		return false, !errors.Is(err, io.ErrUnexpectedEOF)
	}
	return isTarHeader(&block), true
}

// fill reads until b is full or r has no more, and returns r's own error:
// io.EOF is an end, io.ErrUnexpectedEOF a stream that was cut. A decoder that
// panics on its input has met a malformed stream.
func fill(r io.Reader, b []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed compressed data (%v)", p)
		}
	}()
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}

// isTarHeader checks the sum in a header block, which every variant of the
// format has. A block of zeros is the end of an archive, not its start.
func isTarHeader(block *[blockSize]byte) bool {
	field := strings.Trim(string(block[148:156]), " \x00")
	want, err := strconv.ParseInt(field, 8, 64)
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, b := range block {
		if i >= 148 && i < 156 {
			b = ' '
		}
		unsigned += int64(b)
		signed += int64(int8(b))
	}
	return (want == unsigned || want == signed) && (block[0] != 0 || block[156] != 0 && block[156] != '0')
}

// archiveStream is a tar stream behind an optional compression, with a count
// of its bytes.
type archiveStream struct {
	r     io.Reader
	close func()
	kind  compression
	count int64
	limit int64 // 0: none
}

// errTooLarge is a stream beyond Extract.MaxBytes.
var errTooLarge = errors.New("the archive holds more than the limit allows")

func openArchive(r io.Reader, limit int64) (*archiveStream, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(16)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	s := &archiveStream{kind: detect(head), limit: limit}
	z, err := decompress(b, s.kind)
	if err != nil {
		return nil, fmt.Errorf("read %s archive: %w", s.kind, endIsUnexpected(err))
	}
	s.r, s.close = z, func() { z.Close() }
	if s.kind != compressNone {
		ahead := newReadAhead(z)
		s.r, s.close = ahead, ahead.close
	}
	return s, nil
}

func endIsUnexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// slack is what headers may add to the limit on content.
const slack = 64 << 20

func (s *archiveStream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.count += int64(n)
	if s.limit > 0 && s.count > s.limit+slack {
		return n, errTooLarge
	}
	return n, err
}

// verify reads on to the check sum of a compressed stream. Archives are padded
// with a few kilobytes; what is longer is not read. Junk behind gzip's end is
// no error, as for gzip itself.
func (s *archiveStream) verify() error {
	if s.kind == compressNone {
		return nil
	}
	_, err := io.CopyN(io.Discard, s.r, 1<<20)
	if err == nil || err == io.EOF || errors.Is(err, gzip.ErrHeader) {
		return nil
	}
	return err
}

// readAhead decompresses in another goroutine while the caller writes.
type readAhead struct {
	full, free chan []byte
	stop       chan struct{}
	done       chan struct{}
	err        error // valid once full is closed
	cur, rest  []byte
}

func newReadAhead(r io.ReadCloser) *readAhead {
	a := &readAhead{full: make(chan []byte, 4), free: make(chan []byte, 4), stop: make(chan struct{}), done: make(chan struct{})}
	for range 4 {
		a.free <- make([]byte, 256<<10)
	}
	go func() {
		defer close(a.done)
		defer r.Close()
		defer close(a.full)
		for {
			var b []byte
			select {
			case b = <-a.free:
			case <-a.stop:
				return
			}
			n, err := fill(r, b[:cap(b)])
			if n > 0 {
				select {
				case a.full <- b[:n]:
				case <-a.stop:
					return
				}
			}
			if err != nil {
				a.err = err
				return
			}
		}
	}()
	return a
}

func (a *readAhead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.cur != nil {
			a.free <- a.cur[:cap(a.cur)]
			a.cur = nil
		}
		b, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.cur, a.rest = b, b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close stops the reader. It does not wait: the source may be a pipe that
// nobody writes to any more.
func (a *readAhead) close() { close(a.stop) }
