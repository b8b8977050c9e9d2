package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

const aDigest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

func single(mediaType, config string) string {
	return fmt.Sprintf(`{"schemaVersion":2%s,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"digest":%q,"size":1}]}`, mediaType, config, aDigest, aDigest)
}

func TestParseManifestKinds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{single("", v1.MediaTypeImageConfig), v1.MediaTypeImageManifest},
		{single("", MediaTypeDockerConfig), MediaTypeDockerManifest},
		{single(`,"mediaType":"`+v1.MediaTypeImageManifest+`"`, ""), v1.MediaTypeImageManifest},
		{single(`,"mediaType":"`+MediaTypeDockerManifest+`"`, ""), MediaTypeDockerManifest},
		{`{"schemaVersion":2,"manifests":[]}`, v1.MediaTypeImageIndex},
		{`{"schemaVersion":2,"manifests":[{"digest":"` + aDigest + `"}],"mediaType":"` + MediaTypeDockerManifestList + `"}`, MediaTypeDockerManifestList},
	} {
		m, err := ParseManifest([]byte(tc.in))
		if err != nil || m.MediaType != tc.want {
			t.Errorf("%s: %+v %v, want %s", tc.in, m, err, tc.want)
		}
	}
}

func TestParseManifestRefuses(t *testing.T) {
	t.Parallel()
	good := single("", v1.MediaTypeImageConfig)
	for name, in := range map[string]string{
		"empty":          "",
		"null":           "null",
		"list":           "[]",
		"text after":     good + "x",
		"object after":   good + "{}",
		"cut":            good[:len(good)-1],
		"twice":          strings.Replace(good, `"config"`, `"config":{},"config"`, 1),
		"other case":     strings.Replace(good, `"layers"`, `"Layers":[],"layers"`, 1),
		"only case":      strings.Replace(good, `"layers"`, `"LAYERS"`, 1),
		"long s":         strings.Replace(good, `"layers"`, `"layer`+"\u017f"+`":[],"layers"`, 1), // folds to s
		"both":           strings.Replace(good, `"layers"`, `"manifests":[],"layers"`, 1),
		"neither":        `{"schemaVersion":2}`,
		"belied":         single(`,"mediaType":"`+v1.MediaTypeImageIndex+`"`, ""),
		"belied index":   `{"schemaVersion":2,"manifests":[],"mediaType":"` + v1.MediaTypeImageManifest + `"}`,
		"unknown type":   single(`,"mediaType":"text/plain"`, ""),
		"config digest":  strings.Replace(good, aDigest, "sha256:../../x", 1),
		"no digest":      strings.Replace(good, aDigest, "", 1),
		"md5":            strings.Replace(good, aDigest, "md5:d41d8cd98f00b204e9800998ecf8427e", 1),
		"upper case":     strings.Replace(good, aDigest, strings.ToUpper(aDigest), 1),
		"layer digest":   `{"schemaVersion":2,"config":{"digest":"` + aDigest + `"},"layers":[{"digest":"sha256:x"}]}`,
		"entry's digest": `{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}`,
		"too large":      `{"x":"` + strings.Repeat("x", MaxDocument) + `"}`,
		"deep":           `{"schemaVersion":2,"config":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`,
	} {
		m, err := ParseManifest([]byte(in))
		if !errors.Is(err, define.ErrInvalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v %v", name, m, err)
		}
	}
	if _, err := ParseManifest([]byte(`{"schemaVersion":1,"fsLayers":[]}`)); !errors.Is(err, define.ErrUnsupported) {
		t.Errorf("schema 1: %v", err)
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	// As docker 1.10 wrote it: with everything that is left out now.
	img, ids, err := ParseConfig([]byte(`{"architecture":"amd64","os":"linux","container":"x","container_config":{"Cmd":["x"]},"docker_version":"1.10",
		"config":{"Hostname":"h","Env":["A=1"],"Cmd":null,"Volumes":null,"OnBuild":[],"Labels":{},"Healthcheck":{"Test":["NONE"]},"Shell":["/bin/sh"]},
		"created":"2016-01-01T00:00:00.1Z","rootfs":{"type":"layers","diff_ids":["` + aDigest + `"]},"history":[{"created_by":"a","empty_layer":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := img.Env("A"); v != "1" || img.Config.Healthcheck.Test[0] != "NONE" || img.Config.Shell[0] != "/bin/sh" || len(ids) != 1 {
		t.Errorf("%+v %v", img, ids)
	}
	if len(img.History) != 2 || img.History[0].EmptyLayer || !img.History[1].EmptyLayer {
		t.Errorf("the history was not made to fit: %+v", img.History)
	}
	if img, _, err := ParseConfig([]byte(`{"config":null}`)); err != nil || len(img.History) != 0 {
		t.Errorf("config null: %+v %v", img, err)
	}
	for _, in := range []string{"", "[]", `{"config":1}`, `{"rootfs":{"diff_ids":["x"]}}`, `{"created":"yesterday"}`} {
		if _, _, err := ParseConfig([]byte(in)); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	e, err := full().Encode(define.FormatOCI, []Layer{layerOf("x"), {DiffID: layerOf("y").DiffID, Digest: layerOf("z").Digest, Size: 1, MediaType: v1.MediaTypeImageLayerGzip}})
	if err != nil {
		t.Fatal(err)
	}
	docker, mediaType, err := Convert(e.Manifest, define.FormatDocker)
	if err != nil || mediaType != MediaTypeDockerManifest {
		t.Fatal(mediaType, err)
	}
	want, err := full().Encode(define.FormatDocker, []Layer{layerOf("x"), {DiffID: layerOf("y").DiffID, Digest: layerOf("z").Digest, Size: 1, MediaType: MediaTypeDockerLayerGzip}})
	if err != nil {
		t.Fatal(err)
	}
	if string(docker) != string(want.Manifest) {
		t.Errorf("converted to\n%s\nwant\n%s", docker, want.Manifest)
	}
	if same, _, err := Convert(e.Manifest, define.FormatOCI); err != nil || string(same) != string(e.Manifest) {
		t.Errorf("to its own format: %s %v", same, err)
	}
	if _, _, err := Convert([]byte(`{"schemaVersion":2,"manifests":[]}`), define.FormatDocker); !errors.Is(err, define.ErrInvalid) {
		t.Error(err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(single("", v1.MediaTypeImageConfig)))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + aDigest + `","platform":{"os":"linux"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"Manifests":[],"config":{"digest":"sha256:"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			if !errors.Is(err, define.ErrInvalid) && !errors.Is(err, define.ErrUnsupported) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if IsIndex(m.MediaType) == (m.Config != "") {
			t.Errorf("neither image nor index: %+v", m)
		}
		for _, l := range m.Layers {
			if l.Digest.Validate() != nil {
				t.Errorf("let %q through", l.Digest)
			}
		}
		for _, f := range []define.Format{define.FormatOCI, define.FormatDocker} {
			if out, _, err := Convert(data, f); err == nil {
				if _, err := ParseManifest(out); err != nil {
					t.Errorf("converted to %s: %v", out, err)
				}
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(wantConfig))
	f.Add([]byte(`{"config":{"Healthcheck":{"Interval":1}},"rootfs":{"diff_ids":["` + aDigest + `"]},"history":[{},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, ids, err := ParseConfig(data)
		if err != nil {
			return
		}
		layers := make([]Layer, len(ids))
		for i, d := range ids {
			layers[i] = Layer{DiffID: d, Digest: d}
		}
		if img.Platform.OS == "" || img.Platform.Architecture == "" {
			img.Platform = define.HostPlatform()
		}
		e, err := img.Clone().Encode(define.FormatOCI, layers)
		if err != nil {
			return // a year of five digits, for one
		}
		again, _, err := ParseConfig(e.Config)
		if err != nil {
			t.Fatalf("%s: %v", e.Config, err)
		}
		n := 0
		for _, h := range again.History {
			if !h.EmptyLayer {
				n++
			}
		}
		if n != len(ids) {
			t.Errorf("%d layers have %d history entries", len(ids), n)
		}
		e2, err := again.Encode(define.FormatOCI, layers)
		if err != nil || string(e2.Config) != string(e.Config) {
			t.Errorf("encoding is not stable:\n%s\n%s", e.Config, e2.Config)
		}
		if !json.Valid(e.Config) {
			t.Errorf("not JSON: %s", e.Config)
		}
	})
}
