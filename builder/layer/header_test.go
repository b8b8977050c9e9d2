package layer

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vbatts/tar-split/tar/storage"
)

// standardHeader is what archive/tar makes of the member.
func standardHeader(e *entry) ([]byte, error) {
	h := tar.Header{
		Typeflag: e.typ, Name: e.name, Linkname: e.link, Size: e.size, Mode: e.mode, Uid: int(e.uid), Gid: int(e.gid),
		ModTime: time.Unix(e.mtime, 0), Devmajor: e.major, Devminor: e.minor,
	}
	for _, x := range e.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+x.name] = x.value
	}
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&h)
	return b.Bytes(), err
}

func FuzzHeaderIsArchiveTars(f *testing.F) {
	f.Add("a/b", "", byte(tar.TypeReg), int64(5), int64(0o644), int64(0), int64(0), int64(1700000000), int64(0), int64(0), "")
	f.Add("dir/", "", byte(tar.TypeDir), int64(0), int64(0o7755), int64(1<<21), int64(1<<21-1), int64(-5), int64(0), int64(0), "")
	f.Add("dev", "", byte(tar.TypeChar), int64(0), int64(0o666), int64(0), int64(0), int64(0), int64(1), int64(3), "")
	f.Add(strings.Repeat("x", 100), strings.Repeat("y", 100), byte(tar.TypeSymlink), int64(0), int64(0o777), int64(7), int64(8), int64(1<<33), int64(0), int64(0), "")
	f.Add(strings.Repeat("x/", 100), "caf\xc3\xa9", byte(tar.TypeLink), int64(0), int64(0), int64(7), int64(8), int64(1<<33-1), int64(0), int64(0), "v\x00alue")
	f.Add("big", "", byte(tar.TypeReg), int64(1<<33), int64(0o644), int64(0), int64(0), int64(9), int64(0), int64(0), "")
	f.Fuzz(func(t *testing.T, name, link string, typ byte, size, mode, uid, gid, mtime, major, minor int64, x string) {
		e := &entry{
			name: name, link: link, typ: typ, size: size, mode: mode & 0o7777, uid: uid & 0xffffffff, gid: gid & 0xffffffff,
			mtime: mtime, major: major & 0xfff, minor: minor & 0xfffff,
		}
		if size < 0 || name == "" || strings.ContainsRune(name, 0) || strings.ContainsRune(link, 0) || mtime < -1<<40 || mtime > 1<<40 {
			return // not what a file system says
		}
		switch typ {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		default:
			return
		}
		if typ == tar.TypeReg && strings.HasSuffix(name, "/") {
			return
		}
		if x != "" {
			e.xattrs = []xattr{{"user.x", x}}
		}
		want, wantErr := standardHeader(e)
		got, err := e.appendHeader(nil)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("header of %+v differs:\n%q\n%q", e, got, want)
		}
	})
}

func FuzzTarSplitLines(f *testing.F) {
	f.Add("a/b", int64(3), uint64(9), []byte("header"))
	f.Add("quote\"back\\slash<>&\u2028\n", int64(0), uint64(0), []byte{})
	f.Add("\xff\xfe", int64(1), uint64(1)<<63, []byte{0})
	f.Fuzz(func(t *testing.T, name string, size int64, crc uint64, raw []byte) {
		if name == "" || size < 0 {
			return
		}
		b := appendFile(appendSegment(nil, raw, 4), name, size, crc, 5)
		d := json.NewDecoder(bytes.NewReader(b))
		var segment, file storage.Entry
		if err := d.Decode(&segment); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if err := d.Decode(&file); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if segment.Type != storage.SegmentType || !bytes.Equal(segment.Payload, raw) || segment.Position != 4 {
			t.Fatalf("segment %+v", segment)
		}
		if file.Type != storage.FileType || file.GetName() != name || file.Size != size || file.Position != 5 {
			t.Fatalf("file %+v of %q", file, name)
		}
		if size > 0 && len(file.Payload) != 8 || size == 0 && len(file.Payload) != 0 {
			t.Fatalf("checksum %x", file.Payload)
		}
	})
}
