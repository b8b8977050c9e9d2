package security

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// maxPeak is the memory that a hostile archive may cost, in KiB.
const maxPeak = 256 << 10

// stream is an archive that makes a careless reader take all memory, or never
// end. It is compressed: little is sent.
type stream struct {
	rows, name string
	bytes      func(p *place) []byte
	fails      bool // cannot be read as an archive at all
}

func streamAttacks() (all []attack) {
	for _, s := range []stream{
		{"14", "an extended header of a GiB", func(p *place) []byte { return p.huge(header(tar.TypeXHeader, "x", 1<<30), "\x00", 1<<30) }, true},
		{"14", "a long name of a GiB", func(p *place) []byte { return p.huge(header(tar.TypeGNULongName, "././@LongLink", 1<<30), "a", 1<<30) }, true},
		{"14", "global headers without end", func(p *place) []byte { return p.huge(nil, string(header(tar.TypeXGlobalHeader, "g", 0)), 32<<20) }, false},
		{"14", "a map of a sparse file of ten million holes", sparseMap, false},
		{"14", "two GiB behind the end", func(p *place) []byte { return p.huge(make([]byte, 1024), "\x00", 2<<30) }, false},
		{"15", "a gzip stream that is cut", func(p *place) []byte {
			b := p.gzipped(bytes.Repeat(header('0', "f", 0), 1000))
			return b[:len(b)/2]
		}, true},
		{"15", "many gzip streams of nothing", func(p *place) []byte { return bytes.Repeat(p.gzipped(nil), 300000) }, false},
		{"15", "an xz stream that is cut", func(p *place) []byte {
			b := p.packed("xz", archive(p.t, []member{{kind: '0', name: "f", content: strings.Repeat("abc", 100000)}}))
			return b[:len(b)-40]
		}, true},
		{"15", "an xz stream with something behind it", func(p *place) []byte {
			return append(p.packed("xz", archive(p.t, []member{{kind: '0', name: "f", content: "x"}})), "junk behind it"...)
		}, true},
		{"15", "a bzip2 stream of a damaged block", func(p *place) []byte {
			b := p.packed("bzip2", archive(p.t, []member{{kind: '0', name: "f", content: strings.Repeat("abcdefgh", 100000)}}))
			b[len(b)/2] ^= 0x55
			return b
		}, true},
		{"16", "two sizes of one file", twoSizes, false},
	} {
		all = append(all, attack{numbers(s.rows), s.name, s.try})
	}
	return append(all, attack{[]int{60}, "output without end or lines", output})
}

// try reads the stream as a context, by ADD, and into a container.
func (s stream) try(p *place) {
	b := s.bytes(p)
	bounded := func(args ...string) (code int) {
		stdin := ""
		if args[len(args)-1] == "-" {
			stdin = string(b)
		}
		start := time.Now()
		_, stderr, code := p.run(stdin, args...)
		if p.peak > maxPeak {
			p.t.Errorf("strata %q takes %d MiB: %s", args, p.peak>>10, stderr)
		}
		p.t.Logf("%s: %d MiB, %v, exit status %d: %s", args[0], p.peak>>10, time.Since(start).Round(time.Millisecond), code, firstLines(stderr))
		return code
	}
	codes := []int{bounded("build", "-")}
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nADD x.tar.gz /x/\n"})
	p.must(os.WriteFile(filepath.Join(dir, "x.tar.gz"), b, 0o644))
	bounded("build", "--no-cache", dir)
	out, _ := p.ok("", "from", "-q", "localhost/busybox")
	bounded("add", strings.TrimSpace(out), filepath.Join(dir, "x.tar.gz"), "/")
	p.ok("", "rm", strings.TrimSpace(out))
	layout := filepath.Join(p.work, "one.tar")
	p.must(os.WriteFile(layout, b, 0o644))
	codes = append(codes, bounded("pull", "-q", "oci-archive:"+layout), bounded("pull", "-q", "docker-archive:"+layout))
	for _, code := range codes {
		if code == 0 && s.fails {
			p.t.Error("what is no archive was taken for one")
		}
	}
	p.check()
}

// header is a header of a member, of ustar's form, with a right checksum.
func header(kind byte, name string, size int64) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", size))
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// huge is gzip of the beginning and about size bytes of the filling, made of
// streams of a MiB one behind the other.
func (p *place) huge(beginning []byte, filling string, size int) []byte {
	block := p.gzipped(bytes.Repeat([]byte(filling), (1<<20)/len(filling)))
	return append(p.gzipped(beginning), bytes.Repeat(block, size>>20)...)
}

// sparseMap is a file whose map (GNU's sparse format 1.0) says that it has ten
// million parts.
func sparseMap(p *place) []byte {
	record := func(k, v string) string {
		n := len(k) + len(v) + 3
		for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
			n++
		}
		return fmt.Sprintf("%d %s=%s\n", n, k, v)
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "f") + record("GNU.sparse.realsize", "1099511627776")
	var b bytes.Buffer
	b.Write(header(tar.TypeXHeader, "x", int64(len(records))))
	b.WriteString(records)
	b.Write(make([]byte, 512-len(records)%512))
	b.Write(header('0', "f", 41<<20))
	b.WriteString("10000000\n")
	b.WriteString(strings.Repeat("0\n", 256-5)) // up to a MiB's border it does not matter
	return p.huge(b.Bytes(), "0\n", 41<<20)
}

// twoSizes: what one parser takes for the content of a file is another's
// members.
func twoSizes(p *place) []byte {
	inner := append(header('2', "d", 0), header('0', "d/file", 0)...)
	copy(inner[157:], p.canary)
	records := fmt.Sprintf("%d size=%d\n", 9+len(fmt.Sprint(len(inner))), len(inner))
	var b bytes.Buffer
	b.Write(header(tar.TypeXHeader, "x", int64(len(records))))
	b.WriteString(records)
	b.Write(make([]byte, 512-len(records)))
	b.Write(header('0', "f", 0))
	b.Write(inner)
	b.Write(make([]byte, 1024))
	return p.gzipped(b.Bytes())
}

// packed compresses with a program of the host's.
func (p *place) packed(program string, b []byte) []byte {
	cmd := exec.Command(p.toolOrSkip(program), "-c")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	p.must(err)
	return out
}

// output: a step's output is shown as it comes and kept nowhere.
func output(p *place) {
	for _, c := range []string{"head -c 150000000 /dev/zero | tr '\\0' a", "yes | head -c 20000000"} {
		dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN " + c + "\n"})
		cmd := exec.Command("sh", "-c", "exec \"$@\" 2>/dev/null", "sh", p.binary, "build", "--no-cache", dir)
		cmd.Env, cmd.Dir = p.env, p.work
		p.must(cmd.Start())
		ended, peak := make(chan struct{}), make(chan int64)
		go func() { peak <- highWater(cmd.Process.Pid, ended) }()
		err := cmd.Wait()
		close(ended)
		if kib := <-peak; err != nil || kib > 128<<10 {
			p.t.Errorf("%s: %v, %d MiB", c, err, kib>>10)
		}
	}
	p.check()
}
