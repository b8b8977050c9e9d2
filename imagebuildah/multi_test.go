package imagebuildah

import (
	"errors"
	"testing"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// buildsOf plans a file for two platforms, as far as keys need it.
func buildsOf(t *testing.T, text string) []*build {
	t.Helper()
	file, err := containerfile.ParseFiles([]containerfile.Source{{Name: "Containerfile", Content: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{file: file, context: &buildcontext.Context{}}
	var builds []*build
	for _, arch := range []string{"arm64", "s390x"} {
		b := &build{run: r, opts: Options{Platforms: []define.Platform{{OS: "linux", Architecture: arch}}}, label: "linux/" + arch}
		if err := b.plan(); err != nil {
			t.Fatal(err)
		}
		builds = append(builds, b)
	}
	return builds
}

// TestStagesShared: which stages are the same for two platforms.
func TestStagesShared(t *testing.T) {
	t.Parallel()
	const native = "--platform=$BUILDPLATFORM "
	for name, tc := range map[string]struct{ text, shared string }{
		"the target never":             {"FROM " + native + "a", "-"},
		"native":                       {"FROM " + native + "a AS x\nFROM b\nCOPY --from=x / /", "x-"},
		"the target's platform":        {"FROM a AS x\nFROM b\nCOPY --from=x / /", "--"},
		"by value":                     {"FROM --platform=linux/amd64 a AS x\nFROM b\nCOPY --from=x / /", "x-"},
		"target's, said so":            {"FROM --platform=$TARGETPLATFORM a AS x\nFROM b\nCOPY --from=x / /", "--"},
		"on a native stage":            {"FROM " + native + "a AS x\nFROM x AS y\nFROM b\nCOPY --from=y / /", "xx-"},
		"an argument that differs":     {"FROM " + native + "a AS x\nARG TARGETARCH\nFROM b\nCOPY --from=x / /", "--"},
		"its default, replaced":        {"FROM " + native + "a AS x\nARG TARGETARCH=x\nFROM b\nCOPY --from=x / /", "--"},
		"an argument that does not":    {"FROM " + native + "a AS x\nARG V=1\nFROM b\nCOPY --from=x / /", "x-"},
		"a global one that differs":    {"ARG A=$TARGETARCH\nFROM " + native + "a AS x\nARG A\nFROM b\nCOPY --from=x / /", "--"},
		"a base that differs":          {"ARG TARGETARCH\nFROM " + native + "a:$TARGETARCH AS x\nFROM b\nCOPY --from=x / /", "--"},
		"what it copies differs":       {"FROM a AS x\nFROM " + native + "a AS y\nCOPY --from=x / /\nFROM b\nCOPY --from=y / /", "---"},
		"what it mounts differs":       {"FROM a AS x\nFROM " + native + "a AS y\nRUN --mount=from=x,target=/x true\nFROM b\nCOPY --from=y / /", "---"},
		"what it copies is native too": {"FROM " + native + "a AS x\nFROM " + native + "a AS y\nCOPY --from=x / /\nFROM b\nCOPY --from=y / /", "xx-"},
		"one that nobody needs":        {"FROM " + native + "a AS x\nFROM b", "--"},
	} {
		builds := buildsOf(t, tc.text)
		got := ""
		one, two := builds[0].stageKeys(), builds[1].stageKeys()
		for i := range one {
			if one[i] != "" && one[i] == two[i] {
				got += "x"
			} else {
				got += "-"
			}
		}
		if got != tc.shared {
			t.Errorf("%s: %s, want %s", name, got, tc.shared)
		}
	}
}

func TestCheckPlatforms(t *testing.T) {
	t.Parallel()
	o := Options{Platforms: []define.Platform{{OS: "linux", Architecture: "aarch64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}, {OS: "Linux", Architecture: "arm"}}}
	if err := checkPlatforms(&o); err != nil || len(o.Platforms) != 2 || define.FormatPlatform(o.Platforms[1]) != "linux/arm/v7" {
		t.Errorf("%v %v", o.Platforms, err)
	}
	two := o.Platforms
	for name, o := range map[string]Options{
		"all and some":   {Platforms: two, AllPlatforms: true},
		"docker archive": {Platforms: two, Outputs: []Output{{Type: "docker", Dest: "x"}}},
		"docker tag":     {Platforms: two, Tags: []string{"docker-archive:x"}},
		"list's name":    {Manifest: "Upper"},
	} {
		if err := checkPlatforms(&o); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
