package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// A record, little endian:
//
//	 0  8  magic
//	 8  4  length of the Result (JSON)
//	12  4  length of the parts
//	16  4  number of parts
//	20  4  flags: 1 when parts were left out at the end
//	24 32  the key's digest
//	56 32  sha256 of the parts
//	88 32  sha256 of bytes 0 to 87 and the Result
//	120    Result, then parts
//
// A look-up reads the header and the Result only; both have their checksum,
// and the key is repeated, so that no damaged or misplaced file can hit.
const (
	recordMagic  = "strcach1"
	headSize     = 120
	sumAt        = 88
	maxResult    = 1 << 20
	firstRead    = 4096
	flagPartsCut = 1
)

// errNoRecord: there is none, or none that can be trusted.
var errNoRecord = errors.New("no record")

// record is an open record. Its result was verified, its parts were not read.
type record struct {
	fd     int
	result Result
	head   recordHead
}

type recordHead struct {
	resultLen, partsLen, parts, flags uint32
	partsSum                          [sha256.Size]byte
}

// recordBuffer is what a record is gathered in: most are written at once.
const recordBuffer = 64 << 10

// writeRecord writes a record to an empty file. The header comes last, so that
// what was cut short is no record.
func writeRecord(w io.WriterAt, id [sha256.Size]byte, k *Key, r Result) error {
	result, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a result: %w", err)
	}
	if len(result) > maxResult {
		return fmt.Errorf("a result of %d bytes, at most %d are kept: %w", len(result), maxResult, define.ErrInvalid)
	}
	start := headSize + len(result)
	buf, at := make([]byte, start, start+4<<10), int64(0)
	sum := sha256.New()
	flush := func() error {
		if at == 0 {
			sum.Write(buf[start:])
			at = int64(start)
			buf = append(buf[:0], buf[start:]...)
		} else {
			sum.Write(buf)
		}
		_, err := w.WriteAt(buf, at)
		at += int64(len(buf))
		buf = buf[:0]
		return err
	}
	e := partsEncoder{out: func(part []byte) error {
		base := 0
		if at == 0 {
			base = start
		}
		if len(buf)-base+len(part) > recordBuffer && len(buf) > base {
			if err := flush(); err != nil {
				return err
			}
		}
		buf = append(buf, part...)
		return nil
	}}
	if err := e.key(k); err != nil {
		return err
	}
	if at > 0 {
		if err := flush(); err != nil {
			return err
		}
		buf = make([]byte, start)
	} else {
		sum.Write(buf[start:])
	}
	head := append(buf[:0], recordMagic...)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(result)))
	head = binary.LittleEndian.AppendUint32(head, uint32(e.size))
	head = binary.LittleEndian.AppendUint32(head, uint32(e.kept))
	var flags uint32
	if e.full {
		flags |= flagPartsCut
	}
	head = binary.LittleEndian.AppendUint32(head, flags)
	head = append(head, id[:]...)
	head = sum.Sum(head)
	first := headSum(head, result)
	head = append(append(head, first[:]...), result...)
	_, err = w.WriteAt(buf[:max(len(buf), len(head))], 0)
	return err
}

func headSum(head, result []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(head[:sumAt])
	h.Write(result)
	h.Sum(sum[:0])
	return sum
}

// decodeHead reads the header; it does not look at the Result.
func decodeHead(b []byte, id [sha256.Size]byte) (recordHead, error) {
	var h recordHead
	if len(b) < headSize || string(b[:8]) != recordMagic || !bytes.Equal(b[24:56], id[:]) {
		return h, errNoRecord
	}
	h.resultLen = binary.LittleEndian.Uint32(b[8:])
	h.partsLen = binary.LittleEndian.Uint32(b[12:])
	h.parts = binary.LittleEndian.Uint32(b[16:])
	h.flags = binary.LittleEndian.Uint32(b[20:])
	copy(h.partsSum[:], b[56:88])
	if h.resultLen > maxResult || h.partsLen > maxPartsLen {
		return h, errNoRecord
	}
	return h, nil
}

// decodeResult verifies the header's checksum and reads the Result; b is the
// file from its start to the end of the Result.
func decodeResult(b []byte) (Result, error) {
	var r Result
	sum := headSum(b, b[headSize:])
	if !bytes.Equal(sum[:], b[sumAt:headSize]) {
		return r, errNoRecord
	}
	if err := json.Unmarshal(b[headSize:], &r); err != nil {
		return r, errNoRecord
	}
	if r.Layer != "" && !validLayerID(string(r.Layer)) {
		return r, errNoRecord
	}
	return r, nil
}

// openRecord opens and verifies the record at path; errNoRecord when there is
// none of this key there.
func openRecord(path string, id [sha256.Size]byte) (*record, error) {
	fd, err := openFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, errNoRecord
	case err != nil:
		return nil, err
	}
	rec := &record{fd: fd}
	if err := rec.read(id); err != nil {
		rec.close()
		return nil, err
	}
	return rec, nil
}

func (rec *record) read(id [sha256.Size]byte) error {
	buf := make([]byte, firstRead)
	n, err := readAt(rec.fd, buf, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ESPIPE) { // not a file
		return errNoRecord
	}
	if err != nil {
		return err
	}
	buf = buf[:n]
	if rec.head, err = decodeHead(buf, id); err != nil {
		return err
	}
	end := headSize + int(rec.head.resultLen)
	if end > len(buf) && n == firstRead { // a long Note
		buf = make([]byte, end)
		if n, err = readAt(rec.fd, buf, 0); err != nil {
			return err
		}
		buf = buf[:n]
	}
	if end > len(buf) {
		return errNoRecord
	}
	rec.result, err = decodeResult(buf[:end])
	return err
}

// readParts reads what the key was made of; whole is false when parts at the
// end were not kept.
func (rec *record) readParts() (parts []Part, whole bool, err error) {
	body := make([]byte, rec.head.partsLen)
	n, err := readAt(rec.fd, body, int64(headSize)+int64(rec.head.resultLen))
	if err != nil {
		return nil, false, err
	}
	if n < len(body) || sha256.Sum256(body) != rec.head.partsSum {
		return nil, false, errNoRecord
	}
	if parts, err = decodeParts(body, rec.head.parts); err != nil {
		return nil, false, errNoRecord
	}
	return parts, rec.head.flags&flagPartsCut == 0, nil
}

func (rec *record) touch(now time.Time) { touchFile(rec.fd, now) }

func (rec *record) close() { _ = unix.Close(rec.fd) }
