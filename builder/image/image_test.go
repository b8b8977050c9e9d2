package image

import (
	"reflect"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/define"
)

func TestEnv(t *testing.T) {
	t.Parallel()
	img := New(define.Platform{OS: "linux", Architecture: "amd64"})
	img.Config.Env = []string{"A=1", "EMPTY=", "A=2", "BARE"}
	for _, tc := range []struct {
		name, value string
		ok          bool
	}{
		{"A", "2", true}, {"EMPTY", "", true}, {"BARE", "", true}, {"B", "", false}, {"", "", false},
	} {
		if v, ok := img.Env(tc.name); v != tc.value || ok != tc.ok {
			t.Errorf("Env(%q) = %q, %v; want %q, %v", tc.name, v, ok, tc.value, tc.ok)
		}
	}
	before := img.Clone()
	img.SetEnv("A", "3")
	img.SetEnv("B", "x=y")
	if want := []string{"A=3", "EMPTY=", "BARE", "B=x=y"}; !reflect.DeepEqual(img.Config.Env, want) {
		t.Errorf("after SetEnv: %q, want %q", img.Config.Env, want)
	}
	if len(before.Config.Env) != 4 || before.Config.Env[0] != "A=1" {
		t.Errorf("the clone changed: %q", before.Config.Env)
	}
}

func TestNewFillsPlatform(t *testing.T) {
	t.Parallel()
	if p := New(define.Platform{}).Platform; !reflect.DeepEqual(p, define.HostPlatform()) {
		t.Errorf("New({}) has %v, want the host's", p)
	}
	want := define.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	if p := New(want).Platform; !reflect.DeepEqual(p, want) {
		t.Errorf("New(%v) has %v", want, p)
	}
}

func TestCloneIsDeep(t *testing.T) {
	t.Parallel()
	img := full()
	c := img.Clone()
	if !reflect.DeepEqual(img, c) {
		t.Fatalf("clone differs:\n%+v\n%+v", img, c)
	}
	c.Config.Env[0] = "changed"
	c.Config.Cmd[0] = "changed"
	c.Config.Entrypoint[0] = "changed"
	c.Config.Labels["l"] = "changed"
	c.Config.ExposedPorts["1/tcp"] = struct{}{}
	c.Config.Volumes["/w"] = struct{}{}
	c.Config.Healthcheck.Test[0] = "changed"
	c.Config.Healthcheck.Retries = 99
	c.Config.OnBuild[0] = "changed"
	c.Config.Shell[0] = "changed"
	c.History[0].CreatedBy = "changed"
	*c.History[0].Created = time.Unix(99, 0)
	*c.Created = time.Unix(99, 0)
	c.Annotations["a"] = "changed"
	c.Platform.OSFeatures[0] = "changed"
	if !reflect.DeepEqual(img, full()) {
		t.Errorf("a change of the clone reached the original: %+v", img)
	}
}

// full returns an image with every field set.
func full() *Image {
	at := time.Date(2024, 5, 6, 7, 8, 9, 10, time.UTC)
	at2 := at
	return &Image{
		Platform: define.Platform{OS: "linux", Architecture: "arm64", Variant: "v9", OSVersion: "1.2", OSFeatures: []string{"f"}},
		Created:  &at, Author: "A <a@b>",
		Config: Config{
			ImageConfig: v1.ImageConfig{
				User: "1:2", ExposedPorts: map[string]struct{}{"80/tcp": {}}, Env: []string{"A=1"},
				Entrypoint: []string{"/e"}, Cmd: []string{"c & d"}, Volumes: map[string]struct{}{"/v": {}},
				WorkingDir: "/w", Labels: map[string]string{"l": "1", "k": "2"}, StopSignal: "SIGINT", ArgsEscaped: true,
			},
			Healthcheck: &Healthcheck{Test: []string{"CMD", "x"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5},
			OnBuild:     []string{"RUN x"}, Shell: []string{"/bin/ash", "-c"},
		},
		History:     []History{{Created: &at2, CreatedBy: "ADD <x>", Author: "h", Comment: "c"}, {CreatedBy: "ENV A=1", EmptyLayer: true}},
		Annotations: map[string]string{"a": "1"},
	}
}
