package image

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

func layerOf(content string) Layer {
	d := digest.FromString(content)
	return Layer{DiffID: d, Digest: d, Size: int64(len(content))}
}

const wantConfig = `{"created":"2024-05-06T07:08:09.00000001Z","author":"A <a@b>","architecture":"arm64","os":"linux","os.version":"1.2","os.features":["f"],"variant":"v9",` +
	`"config":{"User":"1:2","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Entrypoint":["/e"],"Cmd":["c & d"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"k":"2","l":"1"},"StopSignal":"SIGINT","ArgsEscaped":true,` +
	`"Healthcheck":{"Test":["CMD","x"],"Interval":1,"Timeout":2,"StartPeriod":3,"StartInterval":4,"Retries":5},"OnBuild":["RUN x"],"Shell":["/bin/ash","-c"]},` +
	`"rootfs":{"type":"layers","diff_ids":["sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"]},` +
	`"history":[{"created":"2024-05-06T07:08:09.00000001Z","created_by":"ADD <x>","author":"h","comment":"c"},{"created_by":"ENV A=1","empty_layer":true}]}`

func TestEncodeExactBytes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		format define.Format
		man    string
		lost   []string
	}{
		{define.FormatOCI, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
			`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":SIZE},` +
			`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1}],` +
			`"annotations":{"a":"1"}}`, nil},
		{define.FormatDocker, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` +
			`"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"CONFIG","size":SIZE},` +
			`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1}]}`,
			[]string{"annotations"}},
	} {
		e, err := full().Encode(tc.format, []Layer{layerOf("x")})
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Config) != wantConfig {
			t.Errorf("%s config:\n%s\nwant\n%s", tc.format, e.Config, wantConfig)
		}
		sum := digest.FromBytes(e.Config)
		want := strings.NewReplacer("CONFIG", sum.String(), "SIZE", "777").Replace(tc.man)
		if len(e.Config) != 777 {
			t.Errorf("config has %d bytes", len(e.Config))
		}
		if string(e.Manifest) != want {
			t.Errorf("%s manifest:\n%s\nwant\n%s", tc.format, e.Manifest, want)
		}
		if e.ID.WithAlgorithm() != sum.String() || e.ManifestDigest != digest.FromBytes(e.Manifest) || !reflect.DeepEqual(e.Lost, tc.lost) {
			t.Errorf("%s: %+v", tc.format, e)
		}
	}
}

func TestEncodeIgnoresZones(t *testing.T) {
	t.Parallel()
	a, b := full(), full()
	zone := a.Created.In(time.FixedZone("x", 3600))
	b.Created = &zone
	b.History[0].Created = &zone
	ea, err := a.Encode(define.FormatOCI, []Layer{layerOf("x")})
	if err != nil {
		t.Fatal(err)
	}
	eb, err := b.Encode(define.FormatOCI, []Layer{layerOf("x")})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ea.Config, eb.Config) {
		t.Errorf("%s\n%s", ea.Config, eb.Config)
	}
}

func TestEncodeRoundTrip(t *testing.T) {
	t.Parallel()
	for _, f := range []define.Format{define.FormatOCI, define.FormatDocker} {
		e, err := full().Encode(f, []Layer{layerOf("x")})
		if err != nil {
			t.Fatal(err)
		}
		img, diffIDs, err := ParseConfig(e.Config)
		if err != nil {
			t.Fatal(err)
		}
		man, err := ParseManifest(e.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		img.Annotations = full().Annotations
		if !reflect.DeepEqual(img, full()) || !reflect.DeepEqual(diffIDs, []digest.Digest{layerOf("x").DiffID}) {
			t.Errorf("%s: read back %+v %v", f, img, diffIDs)
		}
		if man.MediaType != e.MediaType || man.Config.Encoded() != string(e.ID) || len(man.Layers) != 1 {
			t.Errorf("%s: manifest read back as %+v", f, man)
		}
	}
}

func TestEncodeEmptyImage(t *testing.T) {
	t.Parallel()
	e, err := New(define.Platform{OS: "linux", Architecture: "amd64"}).Encode("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`; string(e.Config) != want {
		t.Errorf("config %s, want %s", e.Config, want)
	}
	if !strings.Contains(string(e.Manifest), `"layers":[]`) {
		t.Errorf("manifest %s", e.Manifest)
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	late := time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		format define.Format
		change func(*Image, *Layer)
	}{
		"format":      {"tar", func(*Image, *Layer) {}},
		"platform":    {"oci", func(i *Image, _ *Layer) { i.Platform = define.Platform{} }},
		"digest":      {"oci", func(_ *Image, l *Layer) { l.Digest = "sha256:../../x" }},
		"diff ID":     {"oci", func(_ *Image, l *Layer) { l.DiffID = "" }},
		"size":        {"oci", func(_ *Image, l *Layer) { l.Size = -1 }},
		"media type":  {"oci", func(_ *Image, l *Layer) { l.MediaType = "text/plain" }},
		"docker zstd": {"docker", func(_ *Image, l *Layer) { l.MediaType = v1.MediaTypeImageLayerZstd }},
		"year 20000":  {"oci", func(i *Image, _ *Layer) { i.Created = &late }},
		"too large":   {"oci", func(i *Image, _ *Layer) { i.Author = strings.Repeat("x", MaxDocument) }},
	} {
		img, l := full(), layerOf("x")
		tc.change(img, &l)
		if _, err := img.Encode(tc.format, []Layer{l}); !errors.Is(err, define.ErrInvalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestLayerTypesTranslate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		format   define.Format
		in, want string
	}{
		{"oci", MediaTypeDockerLayerGzip, v1.MediaTypeImageLayerGzip},
		{"oci", MediaTypeDockerLayer, v1.MediaTypeImageLayer},
		{"docker", v1.MediaTypeImageLayerGzip, MediaTypeDockerLayerGzip},
		{"docker", "", MediaTypeDockerLayer},
		{"oci", v1.MediaTypeImageLayerZstd, v1.MediaTypeImageLayerZstd},
	} {
		types, err := typesOf(tc.format)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := types.layerType(tc.in); err != nil || got != tc.want {
			t.Errorf("%s %s: %s %v, want %s", tc.format, tc.in, got, err, tc.want)
		}
	}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"", ""}, {"LL", "LL"}, {"LeL", "LeL"}, {"", ""},
		{"2:", "LL"}, {"2:e", "LLe"}, {"2:L", "LL"}, {"1:LLe", "eLe"}, {"0:LL", "ee"}, {"3:eLe", "LLeLe"},
	} {
		in, layers := tc.in, strings.Count(tc.in, "L")
		if len(in) > 1 && in[1] == ':' {
			layers, in = int(in[0]-'0'), in[2:]
		}
		var history []History
		for _, c := range in {
			history = append(history, History{CreatedBy: "x", EmptyLayer: c == 'e'})
		}
		var got strings.Builder
		for _, h := range reconcile(history, layers, nil) {
			got.WriteByte("Le"[map[bool]int{true: 1}[h.EmptyLayer]])
		}
		if got.String() != tc.want {
			t.Errorf("%q became %q, want %q", tc.in, got.String(), tc.want)
		}
	}
}
