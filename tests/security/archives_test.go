package security

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// corpus are archives that write, change or read outside of where they are
// unpacked when they are unpacked carelessly.
func corpus(canary string) map[string][]member {
	up := "../../../../../../../../../../../.."
	file := func(name string) member { return member{kind: tar.TypeReg, name: name, content: "broken"} }
	link := func(name, to string) member { return member{kind: tar.TypeSymlink, name: name, link: to} }
	hard := func(name, to string) member { return member{kind: tar.TypeLink, name: name, link: to} }
	dir := func(name string, mode int64) member { return member{kind: tar.TypeDir, name: name, mode: mode} }
	return map[string][]member{
		"absolute name":            {file(canary + "/file")},
		"dot dot":                  {file(up + canary + "/file"), file("../../canary/file"), file("a/../../../canary/file")},
		"link, then through it":    {link("d", canary), file("d/file"), file("d/new")},
		"link up, then through it": {link("d", up+canary), file("d/file")},
		"chain of links":           {link("a", "b"), link("b", canary), file("a/file"), file("a/dir/sub")},
		"link to a file":           {link("f", canary+"/file"), file("f")},
		"directory over a link":    {link("d", canary), dir("d", 0o777), file("d/file")},
		"mode through a link":      {link("d", canary), dir("d/dir", 0o777), dir("d/", 0o700)},
		"directories below a link": {link("d", canary), dir("d/x/y/z", 0o777)},
		"hard link outside":        {hard("h", canary+"/file"), file("h")},
		"hard link up":             {hard("h", up+canary+"/file"), {kind: tar.TypeReg, name: "h", content: "broken"}},
		"hard link through a link": {link("d", canary), hard("h", "d/file"), file("h")},
		"hard link to a link":      {link("d", canary+"/file"), hard("h", "d"), file("h")},
		"whiteout through a link":  {link("d", canary), file("d/.wh.file"), file("d/.wh..wh..opq")},
		"whiteout of dot dot":      {file(".wh..."), file("../.wh.canary"), file("d/.wh...")},
		"root is a link":           {link(".", canary), file("file")},
		"root is a link, slash":    {link("./", canary), file("./file")},
		"root is a file":           {file("."), file("file")},
		"sibling with a prefix":    {file("../root-evil/x"), file("../diff-evil/x")},
		"the builder's own name":   {file("../bin/strata"), file("../../strata")},
		"proc":                     {link("p", "/proc/self/cwd"), file("p/canary/file"), link("q", "/proc/self/root"), file("q" + canary + "/file")},
		"fifo and file":            {{kind: tar.TypeFifo, name: "f"}, link("d", canary), hard("g", "d/fifo")},
		"extended attribute":       {link("d", canary), {kind: tar.TypeReg, name: "d/setuid", mode: 0o4777, content: "broken"}},
		"Dockerfile is a link":     {link("Dockerfile", canary+"/Dockerfile"), link("Containerfile", canary+"/Dockerfile")},
		"duplicate and link":       {dir("d", 0o755), file("d/file"), link("d", canary), file("d/file")},
	}
}

// TestArchives: rows 1 to 8 and 18, by each way in which an archive comes in.
func TestArchives(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	var served sync.Map // archives by the path that they are fetched by
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := served.Load(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(b.([]byte))
	}))
	t.Cleanup(s.Close)
	n := 0
	for name, members := range corpus(p.canary) {
		n++
		url := fmt.Sprintf("/%d/x.tar", n)
		tag := fmt.Sprintf("localhost/a%d", n)
		t.Run(name, func(t *testing.T) {
			p := p.on(t)
			plain := archive(t, members)
			dir := p.context(map[string]string{
				"Containerfile": "FROM localhost/busybox\nADD x.tar /into/\nADD x.tar /\nRUN ls -lR /into >/dev/null; cat /into/d/file /into/h /into/f; true\n",
			})
			p.must(os.WriteFile(filepath.Join(dir, "x.tar"), plain, 0o644))
			p.run("", "build", "-t", tag, dir)
			p.check()
			// By HTTP, as a context and for ADD, which unpacks on demand only.
			served.Store(url, plain)
			p.run("", "build", s.URL+url)
			p.run("", "build", p.context(map[string]string{
				"Containerfile": "FROM localhost/busybox\nADD --unpack " + s.URL + url + " /into/\nRUN cat /into/d/file /into/h /into/f; true\n"}))
			p.check()
			// As a context, with and without a file of instructions of its own.
			p.run(string(plain), "build", "-")
			// Broken off, and text behind it: no second guess may go through
			// what the first has made (CVE-2026-44517).
			p.run(string(plain[:len(plain)-1024])+strings.Repeat("FROM scratch\n", 200), "build", "-")
			withFile := append([]member{{kind: tar.TypeReg, name: "Containerfile", content: "FROM localhost/busybox\nCOPY . /c\nCOPY d/file h f* /c2/\n"}}, members...)
			p.run(string(archive(t, withFile)), "build", "-f", "Containerfile", "-")
			p.check()
			// As a layer, on which a step runs.
			layout := p.layout(plain)
			if _, _, code := p.run("", "pull", "-q", "oci:"+layout+":x"); code == 0 {
				user := p.context(map[string]string{"Containerfile": "FROM oci:" + layout + ":x\nCOPY --from=localhost/busybox /bin /bin\nRUN cat /d/file /h /f; true\n"})
				p.run("", "build", user)
			}
			p.check()
		})
	}
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

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
