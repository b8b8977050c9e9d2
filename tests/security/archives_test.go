package security

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// member is an entry of a hostile archive.
type member struct {
	kind       byte
	name, link string
	mode       int64
	content    string
}

func archive(t *testing.T, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		mode := m.mode
		if mode == 0 {
			mode = 0o777
		}
		h := &tar.Header{Typeflag: m.kind, Name: m.name, Linkname: m.link, Mode: mode, Size: int64(len(m.content)), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shape is an archive that writes, changes or reads outside of where it is
// unpacked when it is unpacked carelessly, and the rows that it is an example
// of.
type shape struct {
	name    string
	rows    []int
	members func(canary string) []member
}

func shapes() []shape {
	up := "../../../../../../../../../../../.."
	file := func(name string) member { return member{kind: tar.TypeReg, name: name, content: "broken"} }
	link := func(name, to string) member { return member{kind: tar.TypeSymlink, name: name, link: to} }
	hard := func(name, to string) member { return member{kind: tar.TypeLink, name: name, link: to} }
	dir := func(name string, mode int64) member { return member{kind: tar.TypeDir, name: name, mode: mode} }
	of := func(members ...member) []member { return members }
	return []shape{
		{"absolute name", []int{1, 18}, func(canary string) []member { return of(file(canary + "/file")) }},
		{"dot dot", []int{4, 1}, func(canary string) []member {
			return of(file(up+canary+"/file"), file("../../canary/file"), file("a/../../../canary/file"))
		}},
		{"link, then through it", []int{3, 1, 18}, func(canary string) []member { return of(link("d", canary), file("d/file"), file("d/new")) }},
		{"link up, then through it", []int{3, 1}, func(canary string) []member { return of(link("d", up+canary), file("d/file")) }},
		{"chain of links", []int{3, 18}, func(canary string) []member {
			return of(link("a", "b"), link("b", canary), file("a/file"), file("a/dir/sub"))
		}},
		{"link to a file", []int{3, 1}, func(canary string) []member { return of(link("f", canary+"/file"), file("f")) }},
		{"directory over a link", []int{5, 3}, func(canary string) []member { return of(link("d", canary), dir("d", 0o777), file("d/file")) }},
		{"mode through a link", []int{5, 3}, func(canary string) []member { return of(link("d", canary), dir("d/dir", 0o777), dir("d/", 0o700)) }},
		{"directories below a link", []int{3, 5}, func(canary string) []member { return of(link("d", canary), dir("d/x/y/z", 0o777)) }},
		{"hard link outside", []int{8, 18}, func(canary string) []member { return of(hard("h", canary+"/file"), file("h")) }},
		{"hard link up", []int{8}, func(canary string) []member {
			return of(hard("h", up+canary+"/file"), member{kind: tar.TypeReg, name: "h", content: "broken"})
		}},
		{"hard link through a link", []int{3, 8}, func(canary string) []member { return of(link("d", canary), hard("h", "d/file"), file("h")) }},
		{"hard link to a link", []int{5, 8}, func(canary string) []member { return of(link("d", canary+"/file"), hard("h", "d"), file("h")) }},
		{"whiteout through a link", []int{3, 18}, func(canary string) []member { return of(link("d", canary), file("d/.wh.file"), file("d/.wh..wh..opq")) }},
		{"whiteout of dot dot", []int{18}, func(canary string) []member { return of(file(".wh..."), file("../.wh.canary"), file("d/.wh...")) }},
		{"root is a link", []int{6}, func(canary string) []member { return of(link(".", canary), file("file")) }},
		{"root is a link, slash", []int{6}, func(canary string) []member { return of(link("./", canary), file("./file")) }},
		{"root is a file", []int{6}, func(canary string) []member { return of(file("."), file("file")) }},
		{"sibling with a prefix", []int{18}, func(canary string) []member { return of(file("../root-evil/x"), file("../diff-evil/x")) }},
		{"the builder's own name", []int{4}, func(canary string) []member { return of(file("../bin/strata"), file("../../strata")) }},
		{"proc", []int{3}, func(canary string) []member {
			return of(link("p", "/proc/self/cwd"), file("p/canary/file"), link("q", "/proc/self/root"), file("q"+canary+"/file"))
		}},
		{"fifo and file", []int{1, 8}, func(canary string) []member {
			return of(member{kind: tar.TypeFifo, name: "f"}, link("d", canary), hard("g", "d/fifo"))
		}},
		{"extended attribute", []int{5}, func(canary string) []member {
			return of(link("d", canary), member{kind: tar.TypeReg, name: "d/setuid", mode: 0o4777, content: "broken"})
		}},
		{"Dockerfile is a link", []int{2}, func(canary string) []member {
			return of(link("Dockerfile", canary+"/Dockerfile"), link("Containerfile", canary+"/Dockerfile"))
		}},
		{"duplicate and link", []int{18, 3}, func(canary string) []member {
			return of(dir("d", 0o755), file("d/file"), link("d", canary), file("d/file"))
		}},
	}
}

// archiveAttacks: rows 1 to 6, 8 and 18, by each way in which an archive comes in.
func archiveAttacks() (all []attack) {
	for _, s := range shapes() {
		all = append(all, attack{s.rows, s.name, func(p *place) { p.unpack(s.members(p.canary)) }})
	}
	return all
}

// unpack gives strata an archive in every way there is.
func (p *place) unpack(members []member) {
	t := p.t
	plain := archive(t, members)
	broken := string(plain[:len(plain)-1024]) + strings.Repeat("FROM scratch\n", 200)
	// By HTTP the second answer may be another than the first.
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/x.tar":
			w.Write(plain)
		case "/broken":
			if asked.Add(1) > 1 {
				broken = "FROM scratch\n"
			}
			w.Write([]byte(broken))
		}
	}))
	t.Cleanup(s.Close)
	dir := p.context(map[string]string{
		"Containerfile": "FROM localhost/busybox\nADD x.tar /into/\nADD x.tar /\nRUN ls -lR /into >/dev/null; cat /into/d/file /into/h /into/f; true\n",
	})
	p.must(os.WriteFile(filepath.Join(dir, "x.tar"), plain, 0o644))
	p.run("", "build", "-t", "localhost/a", dir)
	p.check()
	// By HTTP, as a context and for ADD, which unpacks on demand only.
	p.run("", "build", s.URL+"/x.tar")
	p.run("", "build", p.context(map[string]string{
		"Containerfile": "FROM localhost/busybox\nADD --unpack " + s.URL + "/x.tar /into/\nRUN cat /into/d/file /into/h /into/f; true\n"}))
	p.check()
	// As a context, with and without a file of instructions of its own.
	p.run(string(plain), "build", "-")
	// Broken off, and text behind it: no second guess may go through what the
	// first has made (CVE-2026-44517).
	p.run(broken, "build", "-")
	p.run("", "build", s.URL+"/broken")
	withFile := append([]member{{kind: tar.TypeReg, name: "Containerfile", content: "FROM localhost/busybox\nCOPY . /c\nCOPY d/file h f* /c2/\n"}}, members...)
	p.run(string(archive(t, withFile)), "build", "-f", "Containerfile", "-")
	p.check()
	// Into a container, and as an image of one layer.
	if out, _, code := p.run("", "from", "-q", "localhost/busybox"); code == 0 {
		p.run("", "add", strings.TrimSpace(out), filepath.Join(dir, "x.tar"), "/")
		p.run("", "run", strings.TrimSpace(out), "--", "sh", "-c", "test -p /f || cat /d/file /h /f; true")
		p.ok("", "rm", strings.TrimSpace(out))
	}
	p.check()
	// As a layer, on which a step runs.
	layout := p.layout(plain)
	if _, _, code := p.run("", "pull", "-q", "oci:"+layout+":x"); code == 0 {
		user := p.context(map[string]string{"Containerfile": "FROM oci:" + layout + ":x\nCOPY --from=localhost/busybox /bin /bin\nRUN cat /d/file /h /f; true\n"})
		p.run("", "build", user)
	}
	p.check()
}

// layout makes an OCI image layout (image-layout.md) with the image x of
// layers, tar archives as they are given, lowest first.
func (p *place) layout(layers ...[]byte) string {
	p.t.Helper()
	return p.layoutOf(map[string]any{}, layers...)
}

// layoutOf is layout with a config object of the caller's.
func (p *place) layoutOf(settings map[string]any, layers ...[]byte) string {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.work, "layout-")
	p.must(err)
	p.must(os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755))
	blob := func(mediaType string, b []byte) map[string]any {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		p.must(os.WriteFile(filepath.Join(dir, "blobs", "sha256", sum), b, 0o644))
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum, "size": len(b)}
	}
	doc := func(v any) []byte {
		b, err := json.Marshal(v)
		p.must(err)
		return b
	}
	const oci = "application/vnd.oci.image."
	var list, diffIDs []any
	for _, layer := range layers {
		l := blob(oci+"layer.v1.tar", layer)
		list, diffIDs = append(list, l), append(diffIDs, l["digest"])
	}
	config := blob(oci+"config.v1+json", doc(map[string]any{
		"architecture": "amd64", "os": "linux", "config": settings,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}))
	manifest := blob(oci+"manifest.v1+json", doc(map[string]any{
		"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": list,
	}))
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "x"}
	p.must(os.WriteFile(filepath.Join(dir, "index.json"), doc(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}), 0o644))
	p.must(os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	return dir
}

// blob writes a document into a directory of blobs.
func (p *place) blob(dir string, doc any) (digest string, size int) {
	p.t.Helper()
	b, err := json.Marshal(doc)
	p.must(err)
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	p.must(os.WriteFile(filepath.Join(dir, sum), b, 0o644))
	return "sha256:" + sum, len(b)
}

func (p *place) gzipped(b []byte) []byte {
	p.t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	p.must(errors.Join(err, w.Close()))
	return out.Bytes()
}
