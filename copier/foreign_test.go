package copier

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/fstree"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// TestExtractForeign: archives that GNU tar writes, in all its formats, give
// the tree that they were made of.
func TestExtractForeign(t *testing.T) {
	t.Parallel()
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar here")
	}
	dir := filepath.Join(t.TempDir(), "src")
	long := strings.Repeat("d", 90) + "/" + strings.Repeat("f", 90)
	fstree.Make(t, dir, own("/a file 4755 \"x\" @5.000000000\n/h hard /a\n/l link -> "+strings.Repeat("t", 99)+"\n/d dir 0700 @6.000000000\n/d/p fifo 0600\n/s file 5000000 bytes sparse\n/empty file \"\""))
	f, err := os.OpenFile(filepath.Join(dir, "s"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1 << 20, 3 << 20} {
		f.WriteAt([]byte("data"), off)
	}
	f.Close()
	for _, c := range []struct {
		name string
		args []string
		long bool
	}{
		{"v7", []string{"--format=v7"}, false}, {"oldgnu", []string{"--format=oldgnu"}, true}, {"gnu", []string{"--format=gnu"}, true},
		{"ustar", []string{"--format=ustar"}, true}, {"pax", []string{"--format=posix"}, true},
		{"oldgnu sparse", []string{"--format=oldgnu", "--sparse"}, true}, {"gnu sparse", []string{"--format=gnu", "--sparse"}, true},
		{"pax sparse 0.0", []string{"--format=posix", "--sparse", "--sparse-version=0.0"}, true},
		{"pax sparse 0.1", []string{"--format=posix", "--sparse", "--sparse-version=0.1"}, true},
		{"pax sparse 1.0", []string{"--format=posix", "--sparse", "--sparse-version=1.0"}, true},
	} {
		if c.long {
			fstree.Make(t, dir, "/"+long+" file \"long\"")
		}
		args := append(c.args, "--sort=name", "-C", dir, "-cf", "-", ".")
		if c.name == "v7" {
			args = append(args[:len(args)-1], "--exclude=./d/p", ".") // v7 has no FIFOs
		}
		var out, msg bytes.Buffer
		cmd := exec.Command(gnu, args...)
		cmd.Stdout, cmd.Stderr = &out, &msg
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: tar: %v: %s", c.name, err, &msg)
			continue
		}
		r, got := makeRoot(t, "", false)
		if err := r.Extract(context.Background(), &out, Extract{Dest: "/"}); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := fstree.MustDump(t, dir, fstree.Contents)
		if c.name == "v7" {
			want = strings.Replace(want, own("/d/p fifo 0600 OWN\n"), "", 1)
		}
		if s := fstree.MustDump(t, got, fstree.Contents); s != want {
			t.Errorf("%s: tree is\n%swant\n%s", c.name, s, want)
		}
		if strings.Contains(c.name, "sparse") && blocks(t, filepath.Join(got, "s"))*512 > 1<<20 {
			t.Errorf("%s: holes were filled", c.name)
		}
	}
}

// TestExtractSizes: where the header and its PAX record disagree on the size,
// the record counts, as for every other reader (CVE-2025-62518).
func TestExtractSizes(t *testing.T) {
	t.Parallel()
	pad := func(s string) []byte { return append([]byte(s), make([]byte, 512-len(s)%512)...) }
	record := func(kv string) string {
		n := len(kv) + 3
		if len(strconv.Itoa(n))+len(kv)+2 != n {
			n++
		}
		return strconv.Itoa(n) + " " + kv + "\n"
	}
	archive := func(records string, size int64, body string) []byte {
		var b []byte
		b = append(b, rawHeader("pax", 'x', int64(len(records)))...)
		b = append(b, pad(records)...)
		b = append(b, rawHeader("f", '0', size)...)
		b = append(b, pad(body)...)
		b = append(b, makeTar(t, tarEntry{name: "g"})...)
		return b
	}
	extractCase{raw: archive(record("size=3"), 0, "abc"), want: "/f file 0644 \"abc\"\n/g file 0644 \"\"\n"}.run(t, false)
	extractCase{raw: archive(record("path=x")+record("path=y"), 3, "abc"), want: "/g file 0644 \"\"\n/y file 0644 \"abc\"\n"}.run(t, false)
	for _, bad := range []string{"5 size=3\n", "99 size=3\n", "size=3\n", record("size=-3"), record("size=x"), record("path=a\x00b"), record("GNU.sparse.major=1") + record("GNU.sparse.minor=0") + record("GNU.sparse.realsize=x")} {
		extractCase{raw: archive(bad, 3, "abc"), err: "archive"}.run(t, false)
	}
}

// TestExtractSparseMaps: maps of millions of entries do not fill the memory
// (CVE-2025-58183).
func TestExtractSparseMaps(t *testing.T) {
	// Not parallel: it looks at the memory of the process.
	var body bytes.Buffer
	body.WriteString("10000000\n")
	for i := range 2_000_000 {
		body.WriteString(strconv.Itoa(i*2) + "\n0\n")
	}
	raw := func() []byte {
		rec := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
		out := rawHeader("x", 'x', int64(len(rec)))
		out = append(out, append([]byte(rec), make([]byte, 512-len(rec))...)...)
		out = append(out, rawHeader("s", '0', int64(body.Len()))...)
		return append(out, body.Bytes()...)
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	extractCase{raw: raw, err: "archive"}.run(t, false)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 200<<20 {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
}

func TestXzDictionary(t *testing.T) {
	t.Parallel()
	in := makeTar(t, tarEntry{name: "f", body: string(fstree.Pattern(100_000))})
	for dict, ok := range map[int]bool{1 << 20: true, maxWindow: true, maxWindow + 1: false, 1 << 30: false} {
		var b bytes.Buffer
		// The writer allocates its dictionary, too; a small one is written and
		// the header changed, with its sum.
		w, err := xz.WriterConfig{DictCap: 1 << 20, BlockSize: 40_000}.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(in)
		w.Close()
		out := withDictionary(b.Bytes(), dict)
		r, _ := makeRoot(t, "", false)
		err = r.Extract(context.Background(), &oneByte{out}, Extract{Dest: "/", Owner: self()})
		if ok && err != nil {
			t.Errorf("dictionary of %d: %v", dict, err)
		}
		if !ok && (err == nil || !strings.Contains(err.Error(), "dictionary")) {
			t.Errorf("dictionary of %d: error is %v", dict, err)
		}
	}
}

// oneByte gives a stream in the smallest pieces.
type oneByte struct{ b []byte }

func (r *oneByte) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 7)], r.b)
	r.b = r.b[n:]
	return n, nil
}

// withDictionary changes the dictionary size in the last block header.
func withDictionary(stream []byte, dict int) []byte {
	out := bytes.Clone(stream)
	last := -1
	for i := 12; i+12 <= len(out); i += 4 {
		size := (int(out[i]) + 1) * 4
		if out[i] != 0 && i+size <= len(out) && crc32.ChecksumIEEE(out[i:i+size-4]) == binary.LittleEndian.Uint32(out[i+size-4:]) {
			last = i
		}
	}
	size := (int(out[last]) + 1) * 4
	h := out[last : last+size]
	at := bytes.Index(h, []byte{0x21, 1}) + 2
	h[at] = lzma.EncodeDictCap(int64(dict))
	binary.LittleEndian.PutUint32(h[size-4:], crc32.ChecksumIEEE(h[:size-4]))
	return out
}
