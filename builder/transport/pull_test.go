package transport_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

func TestPullPolicies(t *testing.T) {
	t.Parallel()
	spec := imagetest.Spec{Layers: twoLayers}
	reg, id := pushed(t, registrytest.Options{}, spec)
	st := imagetest.Store(t)
	c, rec := client(t, st, transport.Options{TLSVerify: no(), Retry: -1})
	name := reg.Host() + "/app:v1"
	pull := func(policy define.PullPolicy) (transport.Local, error) {
		reg.Forget()
		return c.Pull(t.Context(), name, define.HostPlatform(), policy)
	}
	if _, err := pull(define.PullNever); !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), "never") {
		t.Errorf("never, nothing there: %v", err)
	}
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("never made %d requests", n)
	}
	for _, policy := range []define.PullPolicy{define.PullMissing, define.PullNever, define.PullMissing, define.PullNewer, define.PullAlways} {
		l, err := pull(policy)
		if err != nil || l.ID != id || l.Name != name {
			t.Errorf("%v: %+v %v", policy, l, err)
		}
	}
	for _, l := range spec.Build(t).Layers {
		if n := reg.Count("", "/blobs/"+l.Digest.String()); n != 0 {
			t.Errorf("always fetched a layer that is there")
		}
	}
	if _, err := pull(define.PullMissing); err != nil || len(reg.Requests()) != 0 {
		t.Errorf("missing, with the image there: %v, %d requests", err, len(reg.Requests()))
	}

	// The tag moves on.
	spec.Layers = append(spec.Layers, imagetest.Files{"three": "3"})
	b := spec.Build(t)
	for _, blob := range append(b.Blobs, b.Config) {
		reg.PutBlob("app", blob)
	}
	reg.PutManifest("app", "v1", registrytest.Manifest{MediaType: b.MediaType, Data: b.Manifest})
	if l, err := pull(define.PullMissing); err != nil || l.ID != id {
		t.Errorf("missing looked for news: %+v %v", l, err)
	}
	if l, err := pull(define.PullNewer); err != nil || l.ID != b.ID {
		t.Errorf("newer: %+v %v", l, err)
	}
	if old, err := image.Load(st, id); err != nil || len(old.Names) != 0 {
		t.Errorf("the old image kept its name: %v %v", old, err)
	}

	reg.Close()
	if l, err := pull(define.PullNewer); err != nil || l.ID != b.ID {
		t.Errorf("newer, registry gone: %+v %v", l, err)
	}
	if w := rec.texts(define.EventWarning); !strings.Contains(w, "using the image of the store") {
		t.Errorf("newer, registry gone: warned %q", w)
	}
	if _, err := pull(define.PullAlways); err == nil {
		t.Error("always, registry gone: no error")
	}
}

func TestPullChoosesPlatform(t *testing.T) {
	t.Parallel()
	reg := registrytest.Start(t, registrytest.Options{})
	var list []v1.Descriptor
	want := map[string]define.ImageID{}
	for _, p := range []define.Platform{
		{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"},
		{OS: "linux", Architecture: "arm", Variant: "v6"}, {OS: "linux", Architecture: "arm", Variant: "v7"},
	} {
		b := imagetest.Spec{Platform: p, Layers: []imagetest.Files{{"arch": define.FormatPlatform(p)}}}.Build(t)
		for _, blob := range append(b.Blobs, b.Config) {
			reg.PutBlob("app", blob)
		}
		d := reg.PutManifest("app", "", registrytest.Manifest{MediaType: b.MediaType, Data: b.Manifest})
		list = append(list, v1.Descriptor{MediaType: b.MediaType, Digest: d, Size: int64(len(b.Manifest)), Platform: &p})
		want[define.FormatPlatform(p)] = b.ID
	}
	index := reg.PutManifest("app", "v1", registrytest.Manifest{MediaType: v1.MediaTypeImageIndex, Data: imagetest.Index(t, list)})
	st := imagetest.Store(t)
	c, _ := client(t, st, plainHTTP)
	name := reg.Host() + "/app:v1"
	for _, round := range []string{"pull", "again"} {
		for platform, id := range want {
			p, err := define.ParsePlatform(platform)
			if err != nil {
				t.Fatal(err)
			}
			l, err := c.Pull(t.Context(), name, p, define.PullMissing)
			if err != nil || l.ID != id {
				t.Errorf("%s %s: %+v %v, want %s", round, platform, l, err, id)
			}
		}
		if n := len(reg.Requests()); round == "again" && n != 0 {
			t.Errorf("pulling again made %d requests", n)
		}
		reg.Forget()
	}
	if l, err := c.FindLocal(reg.Host()+"/app@"+index.String(), define.Platform{OS: "linux", Architecture: "amd64"}); err != nil || l.ID != want["linux/amd64"] {
		t.Errorf("by the list's digest: %+v %v", l, err)
	}
	_, err := c.Pull(t.Context(), name, define.Platform{OS: "linux", Architecture: "s390x"}, define.PullMissing)
	if !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("a platform that is not there: %v", err)
	}
	// By digest, with and without a tag.
	byDigest := reg.Host() + "/app@" + list[1].Digest.String()
	for _, n := range []string{byDigest, reg.Host() + "/app:v1@" + list[1].Digest.String()} {
		l, err := c.Pull(t.Context(), n, define.Platform{OS: "linux", Architecture: "arm64"}, define.PullMissing)
		if err != nil || l.ID != want["linux/arm64"] {
			t.Errorf("%s: %+v %v", n, l, err)
		}
	}
}

func TestPullOtherPlatformOnly(t *testing.T) {
	t.Parallel()
	reg, id := pushed(t, registrytest.Options{}, imagetest.Spec{Platform: define.Platform{OS: "linux", Architecture: "riscv64"}, Layers: twoLayers})
	c, rec := client(t, imagetest.Store(t), plainHTTP)
	want := define.Platform{OS: "linux", Architecture: "amd64"}
	l, err := c.Pull(t.Context(), reg.Host()+"/app:v1", want, define.PullMissing)
	if err != nil || l.ID != id {
		t.Fatalf("%+v %v", l, err)
	}
	if w := rec.texts(define.EventWarning); !strings.Contains(w, "riscv64") || !strings.Contains(w, "amd64") {
		t.Errorf("warned %q", w)
	}
	if _, err := c.FindLocal(reg.Host()+"/app:v1", want); !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("FindLocal of another platform: %v", err)
	}
}

func TestPullShortNames(t *testing.T) {
	t.Parallel()
	c, rec := client(t, imagetest.Store(t), transport.Options{Retry: -1})
	_, err := c.Pull(t.Context(), "aliased:v9", define.Platform{}, define.PullMissing)
	if err == nil || !strings.Contains(err.Error(), "registry.invalid/real/name:v9") || strings.Contains(err.Error(), "\n") {
		t.Errorf("an alias of registries.conf: %v", err)
	}
	if notes := rec.texts(define.EventNote); !strings.Contains(notes, "registry.invalid/real/name:v9") {
		t.Errorf("told %q", notes)
	}
}

func TestPullOnceForAll(t *testing.T) {
	t.Parallel()
	reg, id := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
	c, _ := client(t, imagetest.Store(t), plainHTTP)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing)
			if err != nil || l.ID != id {
				t.Errorf("%+v %v", l, err)
			}
		})
	}
	wg.Wait()
	if n := reg.Count("GET", "/manifests/v1"); n != 1 {
		t.Errorf("the manifest was fetched %d times", n)
	}
}

func TestPullFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st := imagetest.Store(t)
	spec := imagetest.Spec{Names: []string{"localhost/made:v1"}, Layers: twoLayers}
	imagetest.Layout(t, filepath.Join(dir, "layout"), imagetest.Spec{Names: []string{"tag"}, Layers: twoLayers}, imagetest.Spec{Names: []string{"example.com/x:y"}, Layers: twoLayers[:1]})
	made := imagetest.Put(t, st, spec)
	c, _ := client(t, st, transport.Options{})
	for _, dest := range []string{"oci-archive:" + dir + "/a.tar:example.com/in/archive:v2", "docker-archive:" + dir + "/d.tar:example.com/in/docker:v3", "dir:" + dir + "/dir"} {
		if _, err := c.Push(t.Context(), made.ID, dest, transport.PushOptions{}); err != nil {
			t.Fatalf("%s: %v", dest, err)
		}
	}
	for _, tc := range []struct{ name, full string }{
		{"oci:" + dir + "/layout:tag", ""},
		{"oci:" + dir + "/layout:example.com/x:y", "example.com/x:y"},
		{"oci-archive:" + dir + "/a.tar", "example.com/in/archive:v2"},
		{"oci-archive:" + dir + "/a.tar:example.com/in/archive:v2", "example.com/in/archive:v2"},
		{"docker-archive:" + dir + "/d.tar", "example.com/in/docker:v3"},
		{"dir:" + dir + "/dir", ""},
	} {
		fresh := imagetest.Store(t)
		c, _ := client(t, fresh, transport.Options{})
		for range 2 {
			l, err := c.Pull(t.Context(), tc.name, define.HostPlatform(), define.PullMissing)
			if err != nil || l.Name != tc.full {
				t.Errorf("%s: %+v %v, want the name %q", tc.name, l, err, tc.full)
				continue
			}
			if img, err := image.Load(fresh, l.ID); err != nil || len(img.DiffIDs) == 0 {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	}
	for _, name := range []string{"oci:" + dir + "/nothing:x", "oci-archive:" + dir + "/none.tar", "docker-archive:" + dir + "/none.tar", "dir:" + dir + "/none", "docker-daemon:x:y", "oci:" + dir + "/layout:other"} {
		if _, err := c.Pull(t.Context(), name, define.Platform{}, define.PullMissing); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := c.Pull(t.Context(), "containers-storage:localhost/made:v1", define.Platform{}, define.PullAlways); err != nil || l.ID != made.ID {
		t.Errorf("containers-storage: %+v %v", l, err)
	}
}

func TestPullCancelled(t *testing.T) {
	t.Parallel()
	reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
	reg.Inject(registrytest.Fault{Path: "/manifests/", Delay: time.Minute})
	st := imagetest.Store(t)
	c, _ := client(t, st, plainHTTP)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Pull(ctx, reg.Host()+"/app:v1", define.Platform{}, define.PullMissing); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
	file := filepath.Join(t.TempDir(), "policy.json")
	for text, want := range map[string]string{
		`{"default":[{"type":"reject"}]}`: "rejected by policy",
		`{"default":`:                     "signature policy",
		`{"default":[{"type":"reject"}],"transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]},"docker":{"":[{"type":"insecureAcceptAnything"}]}}}`: "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o := plainHTTP
		o.SignaturePolicy = file
		c, _ := client(t, imagetest.Store(t), o)
		_, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.Platform{}, define.PullMissing)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	o := plainHTTP
	o.SignaturePolicy = file + ".missing"
	c, _ := client(t, imagetest.Store(t), o)
	if _, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.Platform{}, define.PullMissing); err == nil {
		t.Error("a policy file that is not there was not missed")
	}
}
