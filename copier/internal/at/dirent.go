package at

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Entry is one name of a directory with the type that getdents64(2) told:
// S_IFMT bits of a mode, 0 when the file system does not say.
type Entry struct {
	Name string
	Type uint32
}

// A large buffer saves system calls in directories of thousands of files.
var direntBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// ReadDir lists what is in the open directory fd, sorted by name bytes, without
// "." and "..". The descriptor must not have been read before.
func ReadDir(fd int) ([]Entry, error) {
	bp := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(bp)
	var out []Entry
	for {
		n, err := unix.ReadDirent(fd, *bp)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		out = parseDirents((*bp)[:n], out)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Dirent is one name of a directory in a text that holds them all.
type Dirent struct {
	Off  uint32
	Len  uint16
	Pass bool   // the caller's own mark
	Type uint32 // as in Entry
}

// Name is the entry's name; a NUL follows it in names.
func (e Dirent) Name(names string) string { return names[e.Off : e.Off+uint32(e.Len)] }

// ReadDirents is ReadDir without order and without a string a name: the names
// are appended to names, each with a NUL behind it.
func ReadDirents(fd int, list []Dirent, names []byte) ([]Dirent, []byte, error) {
	bp := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(bp)
	for {
		n, err := unix.ReadDirent(fd, *bp)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return list, names, err
		}
		if n <= 0 {
			return list, names, nil
		}
		eachDirent((*bp)[:n], func(name []byte, typ uint32) {
			list = append(list, Dirent{Off: uint32(len(names)), Len: uint16(len(name)), Type: typ})
			names = append(append(names, name...), 0)
		})
		if len(names) > math.MaxInt32 {
			return list, names, unix.EFBIG
		}
	}
}

// struct linux_dirent64: d_ino 8, d_off 8, d_reclen 2, d_type 1, d_name.
const direntHeader = 19

func parseDirents(buf []byte, out []Entry) []Entry {
	eachDirent(buf, func(name []byte, typ uint32) { out = append(out, Entry{Name: string(name), Type: typ}) })
	return out
}

func eachDirent(buf []byte, f func(name []byte, typ uint32)) {
	for len(buf) >= direntHeader {
		reclen := int(binary.NativeEndian.Uint16(buf[16:]))
		if reclen < direntHeader || reclen > len(buf) {
			break
		}
		name := buf[direntHeader:reclen]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		// DT_* are the type bits of a mode, shifted (include/linux/fs_types.h).
		typ := uint32(buf[18]) << 12
		buf = buf[reclen:]
		if string(name) == "." || string(name) == ".." || len(name) == 0 {
			continue
		}
		f(name, typ&unix.S_IFMT)
	}
}
