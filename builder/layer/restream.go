package layer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Stream opens the tar stream of a layer of the store, byte by byte what its
// diff ID was made of, from its tar-split record and its directory. Nothing is
// copied and the store is not locked while it is read: a layer that is removed
// meanwhile is an error of Read. Who reads it compares the diff ID, which
// finds files that were changed since. Layers without a record or directory
// of their own are define.ErrUnsupported.
func Stream(st *store.Store, id define.LayerID) (io.ReadCloser, error) {
	unsupported := fmt.Errorf("layer %s: no record of its stream: %w", id, define.ErrUnsupported)
	if ok, _ := st.ZeroCopy(); !ok {
		return nil, unsupported
	}
	raw := st.Raw()
	driver, err := raw.GraphDriver()
	if err != nil {
		return nil, fmt.Errorf("the store's driver: %w", err)
	}
	m, err := driver.Metadata(string(id))
	dir := m["UpperDir"]
	if err != nil || dir == "" {
		return nil, unsupported
	}
	// Old stores split some layers; in others the names are in a composefs image.
	for _, other := range []string{"diff1", "composefs-data"} {
		if unix.Access(filepath.Join(filepath.Dir(dir), other), unix.F_OK) == nil {
			return nil, unsupported
		}
	}
	record, err := os.Open(filepath.Join(raw.GraphRoot(), raw.GraphDriverName()+"-layers", string(id)+".tar-split.gz"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unsupported // one of an additional store
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		record.Close()
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	s, err := newRestream(root, record)
	if err != nil {
		return nil, fmt.Errorf("layer %s: the record of its stream: %w", id, errors.Join(err, record.Close(), root.Close()))
	}
	s.id = id
	return s, nil
}

// restream puts a tar stream together again.
type restream struct {
	id     define.LayerID
	root   *os.File
	record io.Closer
	lines  *bufio.Reader
	long   []byte // a line that is longer than the buffer

	header []byte // what is left of a segment
	buf    []byte // its memory
	file   int    // the file whose content comes, or -1
	name   string // its name
	left   int64
	err    error
}

func newRestream(root *os.File, record io.ReadCloser) (*restream, error) {
	z, err := gzip.NewReader(record)
	if err != nil {
		return nil, err
	}
	return &restream{root: root, record: record, lines: bufio.NewReaderSize(z, 1<<15), file: -1}, nil
}

// Read fills p as far as it can: a layer of small files is read in few calls.
func (s *restream) Read(p []byte) (n int, err error) {
	for n < len(p) && s.err == nil {
		switch {
		case len(s.header) > 0:
			k := copy(p[n:], s.header)
			s.header, n = s.header[k:], n+k
		case s.left > 0:
			k, err := s.content(p[n:])
			n += k
			s.err = err
		default:
			s.err = s.next()
		}
	}
	if n > 0 {
		return n, nil
	}
	if s.err != nil && s.err != io.EOF {
		return 0, fmt.Errorf("layer %s: %w", s.id, s.err)
	}
	return 0, s.err
}

// content reads of the present file.
func (s *restream) content(p []byte) (int, error) {
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	for {
		n, err := unix.Read(s.file, p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, &fs.PathError{Op: "read", Path: s.name, Err: err}
		case n == 0:
			return 0, fmt.Errorf("/%s is shorter than it was: the store is damaged, see the check command: %w", s.name, define.ErrInvalid)
		}
		if s.left -= int64(n); s.left == 0 {
			unix.Close(s.file)
			s.file = -1
		}
		return n, nil
	}
}

// next begins with the next line of the record; see tarsplit.go.
func (s *restream) next() error {
	line, err := s.line()
	if err != nil {
		return err
	}
	e, err := s.parse(line)
	switch {
	case err != nil:
		return fmt.Errorf("the record of its stream: %w", err)
	case e.Type == 2:
		s.header = e.Payload
		return nil
	case e.Type != 1 || e.Size < 0:
		return fmt.Errorf("the record of its stream: entry of type %d and size %d: %w", e.Type, e.Size, define.ErrInvalid)
	case e.Size == 0:
		return nil
	}
	s.name, s.left = e.Name, e.Size
	if e.Name == "" {
		s.name = string(e.NameRaw)
	}
	// No name in a layer may lead out of its directory. Links within it were
	// followed when it was unpacked, too.
	s.file, err = unix.Openat2(int(s.root.Fd()), filepath.Clean("./"+s.name), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		s.file = -1
		return &fs.PathError{Op: "open", Path: s.name, Err: err}
	}
	return nil
}

// line returns the next line, valid until the following call.
func (s *restream) line() ([]byte, error) {
	line, err := s.lines.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		if len(line) == 0 && err != nil {
			return nil, err
		}
		return line, nil
	}
	s.long = append(s.long[:0], line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = s.lines.ReadSlice('\n')
		s.long = append(s.long, line...)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return s.long, err
}

// splitEntry is a line of the record.
type splitEntry struct {
	Type    int    `json:"type"`
	Name    string `json:"name"`
	NameRaw []byte `json:"name_raw"`
	Size    int64  `json:"size"`
	Payload []byte `json:"payload"`
}

// parse reads a line. Lines as tarsplit.go and tar-split write them for usual
// names are taken apart by hand, at a tenth of the cost.
func (s *restream) parse(line []byte) (splitEntry, error) {
	var e splitEntry
	if rest, ok := bytes.CutPrefix(line, []byte(`{"type":2,"payload":"`)); ok {
		if text, _, ok := bytes.Cut(rest, []byte{'"'}); ok {
			if n := base64.StdEncoding.DecodedLen(len(text)); cap(s.buf) < n {
				s.buf = make([]byte, n)
			}
			n, err := base64.StdEncoding.Decode(s.buf[:cap(s.buf)], text)
			e.Type, e.Payload = 2, s.buf[:n]
			return e, err
		}
	}
	if rest, ok := bytes.CutPrefix(line, []byte(`{"type":1,"name":"`)); ok {
		name, rest, _ := bytes.Cut(rest, []byte{'"'})
		rest, sized := bytes.CutPrefix(rest, []byte(`,"size":`))
		if number, _, ok := bytes.Cut(rest, []byte{','}); sized && ok && bytes.IndexByte(name, '\\') < 0 {
			size, err := strconv.ParseInt(string(number), 10, 64)
			return splitEntry{Type: 1, Name: string(name), Size: size}, err
		}
	}
	err := json.Unmarshal(line, &e)
	return e, err
}

// Close releases what Stream opened.
func (s *restream) Close() error {
	if s.file >= 0 {
		unix.Close(s.file)
		s.file = -1
	}
	if s.err == nil {
		s.err = fs.ErrClosed
	}
	s.left, s.header = 0, nil
	return errors.Join(s.record.Close(), s.root.Close())
}
