package transport_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

func TestPushFormats(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	level := 9
	for name, tc := range map[string]struct {
		from      define.Format
		o         transport.PushOptions
		man       string
		layerType string
		err       string
	}{
		"oci as it is":      {define.FormatOCI, transport.PushOptions{}, v1.MediaTypeImageManifest, v1.MediaTypeImageLayerGzip, ""},
		"docker as it is":   {define.FormatDocker, transport.PushOptions{}, image.MediaTypeDockerManifest, image.MediaTypeDockerLayerGzip, ""},
		"oci to docker":     {define.FormatOCI, transport.PushOptions{Format: define.FormatDocker}, image.MediaTypeDockerManifest, image.MediaTypeDockerLayerGzip, ""},
		"docker to oci":     {define.FormatDocker, transport.PushOptions{Format: define.FormatOCI}, v1.MediaTypeImageManifest, v1.MediaTypeImageLayerGzip, ""},
		"zstd":              {define.FormatOCI, transport.PushOptions{Compression: "zstd"}, v1.MediaTypeImageManifest, v1.MediaTypeImageLayerZstd, ""},
		"gzip 9":            {define.FormatOCI, transport.PushOptions{Compression: "gzip", CompressionLevel: &level}, v1.MediaTypeImageManifest, v1.MediaTypeImageLayerGzip, ""},
		"docker with zstd":  {define.FormatOCI, transport.PushOptions{Format: define.FormatDocker, Compression: "zstd"}, "", "", "oci format"},
		"unknown":           {define.FormatOCI, transport.PushOptions{Compression: "rar"}, "", "", "gzip or zstd"},
		"level 99":          {define.FormatOCI, transport.PushOptions{Compression: "gzip", CompressionLevel: ptr(99)}, "", "", "1 to 9"},
		"format of nothing": {define.FormatOCI, transport.PushOptions{Format: "tar"}, "", "", "oci or docker"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := registrytest.Start(t, registrytest.Options{})
			img := imagetest.Put(t, st, imagetest.Spec{Format: tc.from, Layers: bigLayer, Configure: func(i *image.Image) {
				i.SetEnv("FORMAT", string(tc.from))
				i.Config.Healthcheck = &image.Healthcheck{Test: []string{"CMD", "x"}}
			}})
			c, _ := client(t, st, plainHTTP)
			_, err := c.Push(t.Context(), img.ID, reg.Host()+"/app:v1", tc.o)
			if tc.err != "" {
				if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := reg.Manifest("app", "v1")
			man, err := image.ParseManifest(raw.Data)
			if err != nil || man.MediaType != tc.man || man.Layers[0].MediaType != tc.layerType {
				t.Errorf("pushed %s %v", raw.Data, err)
			}
			config, ok := reg.Blob("app", man.Config)
			if !ok || !strings.Contains(string(config), "Healthcheck") {
				t.Errorf("the config lost its health check: %s", config)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestExports(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := imagetest.Store(t)
	one := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	two := imagetest.Put(t, st, imagetest.Spec{Layers: bigLayer})
	c, rec := client(t, st, transport.Options{})
	for _, dest := range []string{"oci-archive:DIR/sub/a.tar:x", "docker-archive:DIR/d.tar:localhost/x:y", "oci:DIR/layout:x", "dir:DIR/d"} {
		dest = strings.Replace(dest, "DIR", dir, 1)
		for _, img := range []*image.Stored{one, two, one} { // replacing is allowed
			if _, err := c.Push(t.Context(), img.ID, dest, transport.PushOptions{}); err != nil {
				t.Fatalf("%s: %v", dest, err)
			}
			l, err := c.Pull(t.Context(), dest, define.Platform{}, define.PullMissing)
			if err != nil || l.ID != img.ID {
				t.Errorf("%s: read back %+v %v, want %s", dest, l, err, img.ID)
			}
		}
	}
	noTemps(t, dir)
	if !slices.ContainsFunc(rec.events, func(e define.Event) bool { return e.Kind == define.EventTransfer && e.Text == "export" }) {
		t.Error("no export was told")
	}
}

// noTemps fails the test when a temporary file is left.
func noTemps(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") || strings.HasSuffix(path, ".old") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestExportFailureKeepsOld breaks exports over something good.
func TestExportFailureKeepsOld(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	good := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, st, transport.Options{})
	for _, dest := range []string{"oci-archive:DIR/a.tar:x", "docker-archive:DIR/d.tar:localhost/x:y", "oci:DIR/layout:x", "dir:DIR/d"} {
		dir := t.TempDir()
		dest = strings.Replace(dest, "DIR", dir, 1)
		if _, err := c.Push(t.Context(), good.ID, dest, transport.PushOptions{}); err != nil {
			t.Fatalf("%s: %v", dest, err)
		}
		before := contents(t, dir)
		if _, err := c.Push(t.Context(), define.ImageID(strings.Repeat("0", 64)), dest, transport.PushOptions{}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: an image that is not there: %v", dest, err)
		}
		after := contents(t, dir)
		if before != after {
			t.Errorf("%s changed:\n%s\n%s", dest, before, after)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dest := range []string{"dir:" + dir, "oci-archive:" + dir + ":x", "docker-archive:" + dir + ":x:y", "oci:" + dir + "/file:x", "dir:" + dir + "/file", "oci-archive:", "oci::x", "dir:"} {
		if _, err := c.Push(t.Context(), good.ID, dest, transport.PushOptions{}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", dest, err)
		}
	}
	if data, err := os.ReadFile(dir + "/file"); err != nil || string(data) != "precious" {
		t.Errorf("%q %v", data, err)
	}
	noTemps(t, dir)
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		b.WriteString(path + " " + string(data[:min(len(data), 2000)]) + "\n")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return b.String()
}

func TestExportLayoutTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, st, transport.Options{})
	var wg sync.WaitGroup
	names := []string{"a", "b", "c", "d", "e"}
	for _, n := range names {
		wg.Go(func() {
			if _, err := c.Push(t.Context(), img.ID, "oci:"+dir+"/l:"+n, transport.PushOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(dir + "/l/index.json")
	if err != nil {
		t.Fatal(err)
	}
	var index v1.Index
	if err := json.Unmarshal(data, &index); err != nil || len(index.Manifests) != len(names) {
		t.Errorf("the index has %s", data)
	}
}

func TestExportToPipe(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip("no FIFOs here:", err)
	}
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, st, transport.Options{})
	var members []string
	done := make(chan error, 1)
	go func() {
		f, err := os.Open(fifo)
		if err != nil {
			done <- err
			return
		}
		defer f.Close()
		r := tar.NewReader(f)
		for {
			h, err := r.Next()
			if err != nil {
				io.Copy(io.Discard, f)
				if err == io.EOF {
					err = nil
				}
				done <- err
				return
			}
			members = append(members, h.Name)
		}
	}()
	if _, err := c.Push(t.Context(), img.ID, "docker-archive:"+fifo+":localhost/x:y", transport.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !slices.Contains(members, "manifest.json") {
		t.Errorf("read %q %v", members, err)
	}
}

func TestExportDockerArchiveTags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, st, transport.Options{})
	if _, err := c.Push(t.Context(), img.ID, "docker-archive:"+dir+"/d.tar:localhost/x:y", transport.PushOptions{Tags: []string{"z"}}); err != nil {
		t.Fatal(err)
	}
	data, err := exec.Command("tar", "-xOf", dir+"/d.tar", "manifest.json").Output()
	if err != nil || !strings.Contains(string(data), `"localhost/x:y"`) || !strings.Contains(string(data), `"localhost/z:latest"`) {
		t.Errorf("%s %v", data, err)
	}
	for _, o := range []transport.PushOptions{{Format: define.FormatOCI}, {Compression: "gzip"}, {Tags: []string{"BAD"}}} {
		if _, err := c.Push(t.Context(), img.ID, "docker-archive:"+dir+"/d.tar:localhost/x:y", o); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := c.Push(t.Context(), img.ID, "oci-archive:"+dir+"/o.tar:x", transport.PushOptions{Tags: []string{"z"}}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("a bare tag beside an archive: %v", err)
	}
}

func TestPushToOwnStore(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, st, transport.Options{})
	d, err := c.Push(t.Context(), img.ID, "containers-storage:new", transport.PushOptions{Tags: []string{"new:v2"}})
	if err != nil || d != img.Digest {
		t.Fatalf("%s %v", d, err)
	}
	for _, n := range []string{"new", "localhost/new:v2"} {
		if l, err := c.FindLocal(n, define.Platform{}); err != nil || l.ID != img.ID {
			t.Errorf("%s: %+v %v", n, l, err)
		}
	}
}

func TestPushRefusesDestinations(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, st, transport.Options{})
	for _, dest := range []string{"", "docker-daemon:x:y", "docker://", "docker://UPPER/x", "host/UP:x", "a b"} {
		_, err := c.Push(t.Context(), img.ID, dest, transport.PushOptions{})
		if !errors.Is(err, define.ErrInvalid) && !errors.Is(err, define.ErrUnsupported) {
			t.Errorf("%q: %v", dest, err)
		}
	}
	if _, err := c.Push(t.Context(), "abc", "oci:"+t.TempDir()+"/x", transport.PushOptions{}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("an ID that is none: %v", err)
	}
}

func TestPushList(t *testing.T) {
	t.Parallel()
	for _, f := range []define.Format{"", define.FormatOCI, define.FormatDocker} {
		dir := t.TempDir()
		reg := registrytest.Start(t, registrytest.Options{})
		st := imagetest.Store(t)
		var ids []define.ImageID
		platforms := []string{"linux/amd64", "linux/arm64", "linux/arm/v7"}
		for _, s := range platforms {
			p, err := define.ParsePlatform(s)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, imagetest.Put(t, st, imagetest.Spec{Platform: p, Layers: append(slices.Clone(twoLayers), imagetest.Files{"p": s})}).ID)
		}
		c, _ := client(t, st, plainHTTP)
		d, err := c.PushList(t.Context(), ids, map[string]string{"k": "v"}, reg.Host()+"/app:v1", transport.PushOptions{Format: f, Tags: []string{reg.Host() + "/app:v2"}})
		if err != nil {
			t.Fatal(err)
		}
		raw, ok := reg.Manifest("app", "v2")
		man, err := image.ParseManifest(raw.Data)
		if !ok || err != nil || len(man.Manifests) != 3 || !image.IsIndex(man.MediaType) || (f != define.FormatDocker) != (man.Annotations["k"] == "v") {
			t.Fatalf("%q: the registry has %s (%v)", f, raw.Data, err)
		}
		if first, ok := reg.Manifest("app", d.String()); !ok || string(first.Data) != string(raw.Data) {
			t.Errorf("%q: the digest that PushList returned is another list's", f)
		}
		for n, s := range platforms {
			p, _ := define.ParsePlatform(s)
			fresh, _ := client(t, imagetest.Store(t), plainHTTP)
			if l, err := fresh.Pull(t.Context(), reg.Host()+"/app:v1", p, define.PullMissing); err != nil || l.ID != ids[n] {
				t.Errorf("%q %s: %+v %v", f, s, l, err)
			}
		}
		if f == define.FormatDocker {
			if _, err := c.PushList(t.Context(), ids, nil, "docker-archive:"+dir+"/d.tar", transport.PushOptions{}); !errors.Is(err, define.ErrInvalid) {
				t.Errorf("a list in a docker archive: %v", err)
			}
			continue
		}
		// Into the store, and from there as an image like any other.
		if _, err := c.PushList(t.Context(), ids, nil, "containers-storage:list", transport.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		rec, err := st.Raw().Image("localhost/list:latest")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Push(t.Context(), define.ImageID(rec.ID), "oci-archive:"+dir+"/o.tar:x", transport.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		for n, s := range platforms {
			p, _ := define.ParsePlatform(s)
			fresh, _ := client(t, imagetest.Store(t), plainHTTP)
			if l, err := fresh.Pull(t.Context(), "oci-archive:"+dir+"/o.tar", p, define.PullMissing); err != nil || l.ID != ids[n] {
				t.Errorf("archive %s: %+v %v", s, l, err)
			}
		}
	}
}

// TestPushSendsOnce: what the registry has is not compressed and sent again,
// by this process or a later one, whether it was pulled or pushed.
func TestPushSendsOnce(t *testing.T) {
	t.Parallel()
	reg := registrytest.Start(t, registrytest.Options{})
	st := imagetest.Store(t)
	uploads := func(names ...string) int {
		t.Helper()
		var layers []imagetest.Files
		for _, n := range names {
			layers = append(layers, imagetest.Files{n: strings.Repeat(n, 10000)})
		}
		img := imagetest.Put(t, st, imagetest.Spec{Layers: layers})
		reg.Forget()
		c, _ := client(t, st, plainHTTP)
		if _, err := c.Push(t.Context(), img.ID, reg.Host()+"/app:"+strings.Join(names, ""), transport.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		return reg.Count("PATCH", "/uploads/")
	}
	for _, tc := range []struct {
		names []string
		want  int // layers and config
	}{{[]string{"a", "b"}, 3}, {[]string{"a", "b"}, 0}, {[]string{"a", "b", "c"}, 2}, {[]string{"a"}, 1}} {
		if n := uploads(tc.names...); n != tc.want {
			t.Errorf("pushing %v sent %d blobs, want %d", tc.names, n, tc.want)
		}
	}
	// Another machine, which pulled.
	st = imagetest.Store(t)
	c, _ := client(t, st, plainHTTP)
	before, _ := reg.Manifest("app", "ab")
	l, err := c.Pull(t.Context(), reg.Host()+"/app:ab", define.Platform{}, define.PullMissing)
	if err != nil {
		t.Fatal(err)
	}
	reg.Forget()
	if _, err := c.Push(t.Context(), l.ID, reg.Host()+"/app:again", transport.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := reg.Count("PATCH", "/uploads/"); n != 0 {
		t.Errorf("pushing what was pulled sent %d blobs", n)
	}
	if after, _ := reg.Manifest("app", "again"); string(after.Data) != string(before.Data) {
		t.Errorf("the manifest changed:\n%s\n%s", before.Data, after.Data)
	}
	// A registry that has nothing is served in full.
	empty := registrytest.Start(t, registrytest.Options{})
	if _, err := c.Push(t.Context(), l.ID, empty.Host()+"/app:v1", transport.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := empty.Count("PATCH", "/uploads/"); n != 3 {
		t.Errorf("an empty registry got %d blobs", n)
	}
	// A form that is asked for is sent once too, and no other stands for it.
	for _, tc := range []struct {
		tag  string
		o    transport.PushOptions
		want int
	}{
		{"gzip", transport.PushOptions{Compression: "gzip"}, 0},
		{"zstd", transport.PushOptions{Compression: "zstd"}, 2}, // the config is there
		{"zstd2", transport.PushOptions{Compression: "zstd"}, 0},
		{"again", transport.PushOptions{}, 0},
		{"level", transport.PushOptions{Compression: "zstd", CompressionLevel: new(19)}, 2},
	} {
		reg.Forget()
		if _, err := c.Push(t.Context(), l.ID, reg.Host()+"/app:"+tc.tag, tc.o); err != nil {
			t.Fatal(err)
		}
		if n := reg.Count("PATCH", "/uploads/"); n != tc.want {
			t.Errorf("%s sent %d blobs, want %d", tc.tag, n, tc.want)
		}
	}
	one, _ := reg.Manifest("app", "zstd")
	two, _ := reg.Manifest("app", "zstd2")
	if string(one.Data) != string(two.Data) || !strings.Contains(string(one.Data), "tar+zstd") {
		t.Errorf("zstd, and again:\n%s\n%s", one.Data, two.Data)
	}
}

// TestSkopeoInspects lets another client read what was pushed, from the
// in-process registry and from archives.
func TestSkopeoInspects(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := t.TempDir()
	reg := registrytest.Start(t, registrytest.Options{})
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: bigLayer, Configure: func(i *image.Image) { i.Config.Labels = map[string]string{"k": "v"} }})
	c, _ := client(t, st, plainHTTP)
	for _, dest := range []string{"docker://" + reg.Host() + "/app:v1", "oci:" + dir + "/l:x", "oci-archive:" + dir + "/o.tar:x", "docker-archive:" + dir + "/d.tar:localhost/x:y", "dir:" + dir + "/dir"} {
		d, err := c.Push(t.Context(), img.ID, dest, transport.PushOptions{})
		if err != nil {
			t.Fatalf("%s: %v", dest, err)
		}
		out, err := exec.Command(skopeo, "inspect", "--tls-verify=false", dest).Output()
		var got struct {
			Digest string
			Labels map[string]string
		}
		if err != nil || json.Unmarshal(out, &got) != nil || got.Labels["k"] != "v" {
			t.Errorf("%s: %v: %s", dest, err, out)
		}
		if got.Digest != d.String() && !strings.HasPrefix(dest, "docker-archive:") { // which has no manifest of that kind
			t.Errorf("%s: skopeo says %s, Push said %s", dest, got.Digest, d)
		}
		if out, err := exec.Command(skopeo, "copy", "--src-tls-verify=false", dest, "dir:"+t.TempDir()).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", dest, err, out)
		}
	}
}

// TestPushOfChangedLayer: what Options.Layer gives is compared with the diff
// ID, and what it does not know comes from the storage library.
func TestPushOfChangedLayer(t *testing.T) {
	t.Parallel()
	reg := registrytest.Start(t, registrytest.Options{})
	st := imagetest.Store(t)
	img := imagetest.Put(t, st, imagetest.Spec{Layers: []imagetest.Files{{"a": "one"}, {"b": "two"}}})
	for _, tc := range []struct {
		what  string
		layer func(define.LayerID) (io.ReadCloser, error)
		want  string
	}{
		{"changed", func(define.LayerID) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("other")), nil }, "igest did not match"},
		{"broken", func(define.LayerID) (io.ReadCloser, error) { return nil, errors.New("damaged") }, "damaged"},
		{"unknown", func(define.LayerID) (io.ReadCloser, error) { return nil, define.ErrUnsupported }, ""},
	} {
		o := plainHTTP
		o.Layer = tc.layer
		c, _ := client(t, st, o)
		_, err := c.Push(t.Context(), img.ID, reg.Host()+"/app:"+tc.what, transport.PushOptions{})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.what, err)
		}
		if _, there := reg.Manifest("app", tc.what); there != (tc.want == "") {
			t.Errorf("%s: there is a manifest: %v", tc.what, there)
		}
	}
}
