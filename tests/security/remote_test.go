package security

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// remoteAttacks are about what others say about images.
func remoteAttacks() []attack {
	return []attack{
		{[]int{62}, "a frontend of another's choice", frontend},
		{[]int{63}, "digests that are paths", digests},
		{[]int{70}, "keys for one platform", oneKey},
	}
}

// frontend: nobody is asked for a program that would read the file.
func frontend(p *place) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.NotFound(w, r)
	}))
	p.t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	for _, args := range [][]string{nil, {"--build-arg", "BUILDKIT_SYNTAX=" + host + "/evil:1"}} {
		dir := p.context(map[string]string{"Containerfile": "# syntax=" + host + "/evil:1\nFROM localhost/busybox\nRUN true\n"})
		p.run("", append([]string{"build", "--no-cache", "--tls-verify=false"}, append(args, dir)...)...)
	}
	if n := asked.Load(); n > 0 {
		p.t.Errorf("the registry of a frontend was asked %d times", n)
	}
	p.check()
}

// digests: those of an index, a manifest and a config are checked before they
// are names of files.
func digests(p *place) {
	up := strings.Repeat("../", 12) + strings.TrimPrefix(p.canary, "/")
	for _, d := range []string{
		"sha256:" + up + "/file", up + "/file", "", ":", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + strings.Repeat("A", 64),
		"sha256:" + strings.Repeat("a", 10240), "../../file:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 60) + "/../",
	} {
		for _, where := range []string{"index", "config", "layer"} {
			good := p.layout(archive(p.t, []member{{kind: '0', name: "f", content: "x"}}))
			blobs := filepath.Join(good, "blobs", "sha256")
			var index map[string]any
			b, err := os.ReadFile(filepath.Join(good, "index.json"))
			p.must(err)
			p.must(json.Unmarshal(b, &index))
			first := index["manifests"].([]any)[0].(map[string]any)
			if where == "index" {
				first["digest"] = d
			} else {
				name := strings.TrimPrefix(first["digest"].(string), "sha256:")
				b, err := os.ReadFile(filepath.Join(blobs, name))
				p.must(err)
				var manifest map[string]any
				p.must(json.Unmarshal(b, &manifest))
				if where == "config" {
					manifest["config"].(map[string]any)["digest"] = d
				} else {
					manifest["layers"].([]any)[0].(map[string]any)["digest"] = d
				}
				first["digest"], first["size"] = p.blob(blobs, manifest)
			}
			b, err = json.Marshal(index)
			p.must(err)
			p.must(os.WriteFile(filepath.Join(good, "index.json"), b, 0o644))
			if _, stderr, code := p.run("", "pull", "-q", "oci:"+good+":x"); code == 0 {
				p.t.Errorf("%s: digest %.40q was taken: %s", where, d, stderr)
			}
		}
		p.check()
	}
}

// oneKey: a key for the image of one platform opens neither that of another
// platform of the same list, nor what was opened before for somebody who had
// the key.
func oneKey(p *place) {
	files := map[string]string{}
	for _, name := range []string{"a", "b"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		p.must(err)
		public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		p.must(err)
		files[name+".pub"], files[name+".key"] = filepath.Join(p.work, name+".pub"), filepath.Join(p.work, name+".key")
		p.must(os.WriteFile(files[name+".pub"], pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
		p.must(os.WriteFile(files[name+".key"], pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
	}
	both := filepath.Join(p.work, "both")
	p.must(os.MkdirAll(filepath.Join(both, "blobs/sha256"), 0o755))
	var list []any
	for arch, key := range map[string]string{"amd64": "a.pub", "s390x": "b.pub"} {
		dir := p.context(map[string]string{"Containerfile": "FROM scratch\nCOPY secret /\n", "secret": "of " + arch + "\n"})
		p.ok("", "build", "-q", "--platform", "linux/"+arch, "-t", "localhost/"+arch, dir)
		one := filepath.Join(p.work, arch)
		p.ok("", "push", "-q", "--encryption-key", "jwe:"+files[key], "localhost/"+arch, "oci:"+one+":x")
		p.ok("", "rmi", "-f", "localhost/"+arch)
		p.must(os.CopyFS(filepath.Join(both, "blobs", arch), os.DirFS(filepath.Join(one, "blobs/sha256"))))
		blobs, err := os.ReadDir(filepath.Join(both, "blobs", arch))
		p.must(err)
		for _, b := range blobs {
			p.must(os.Rename(filepath.Join(both, "blobs", arch, b.Name()), filepath.Join(both, "blobs/sha256", b.Name())))
		}
		var index map[string]any
		b, err := os.ReadFile(filepath.Join(one, "index.json"))
		p.must(err)
		p.must(json.Unmarshal(b, &index))
		m := index["manifests"].([]any)[0].(map[string]any)
		delete(m, "annotations")
		m["platform"] = map[string]any{"os": "linux", "architecture": arch}
		list = append(list, m)
	}
	digest, size := p.blob(filepath.Join(both, "blobs/sha256"), map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list})
	p.must(os.WriteFile(filepath.Join(both, "index.json"), fmt.Appendf(nil,
		`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"x"}}]}`, digest, size), 0o644))
	p.must(os.WriteFile(filepath.Join(both, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	for _, c := range []struct {
		arch, key string
		opens     bool
	}{{"amd64", "", false}, {"s390x", "a.key", false}, {"amd64", "b.key", false}, {"amd64", "a.key", true}, {"s390x", "a.key", false}, {"amd64", "", false}, {"s390x", "b.key", true}} {
		args := []string{"pull", "-q", "--platform", "linux/" + c.arch}
		if c.key != "" {
			args = append(args, "--decryption-key", files[c.key])
		}
		if _, stderr, code := p.run("", append(args, "oci:"+both+":x")...); code == 0 != c.opens {
			p.t.Errorf("%s with %q: exit status %d: %s", c.arch, c.key, code, stderr)
		}
	}
	p.check()
}
