package transport_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// named puts an image that differs by its name.
func named(t testing.TB, st *store.Store, names ...string) *image.Stored {
	t.Helper()
	return imagetest.Put(t, st, imagetest.Spec{Names: names, Configure: func(i *image.Image) { i.SetEnv("NAMES", strings.Join(names, " ")) }})
}

func TestFindLocal(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	mine := named(t, st, "localhost/app:latest", "localhost/app:v1")
	hub := named(t, st, "docker.io/library/busybox:latest")
	both := named(t, st, "docker.io/library/app:latest")
	org := named(t, st, "docker.io/org/tool:v2")
	quay := named(t, st, "quay.io/org/tool:latest")
	aliased := named(t, st, "registry.invalid/real/name:latest")
	c, _ := client(t, st, transport.Options{})
	for name, want := range map[string]*image.Stored{
		"app": mine, "app:v1": mine, "localhost/app": mine, "localhost/app:v1": mine,
		"busybox": hub, "docker.io/busybox": hub, "docker.io/library/busybox:latest": hub, "library/busybox": hub,
		"docker://busybox": hub, "docker.io/app": both, "docker://app": both,
		"org/tool:v2": org, "quay.io/org/tool": quay, "aliased": aliased,
		"containers-storage:app": mine, "containers-storage:[vfs@/x+/y]app:v1": mine,
		string(mine.ID): mine, string(mine.ID[:12]): mine, "sha256:" + string(mine.ID): mine, "sha256:" + string(mine.ID[:8]): mine,
		"localhost/app@" + mine.Digest.String(): mine, "localhost/app:gone@" + mine.Digest.String(): mine,
	} {
		if l, err := c.FindLocal(name, define.Platform{}); err != nil || l.ID != want.ID {
			t.Errorf("%s: %+v %v, want %v", name, l, err, want.Names)
		}
		if l, err := c.FindLocal(name, define.HostPlatform()); err != nil || l.ID != want.ID {
			t.Errorf("%s of the host's platform: %+v %v", name, l, err)
		}
	}
	if l, err := c.FindLocal("app", define.Platform{}); err != nil || l.Name != "localhost/app:latest" {
		t.Errorf("%+v %v", l, err)
	}
	for name, want := range map[string]string{
		"ap": `"localhost/app:latest"`, "busibox": `"docker.io/library/busybox:latest"`, "app:v3": `"localhost/app`,
		"org/tool": `it has "docker.io/org/tool:v2"`, "nothing": "",
		"localhost/busybox@" + mine.Digest.String(): "",
		"00": "", strings.Repeat("0", 64): "", "sha256:" + strings.Repeat("0", 64): "",
	} {
		_, err := c.FindLocal(name, define.Platform{})
		if !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	for _, name := range []string{"", "A", "a b", "a@b", "docker://"} {
		if _, err := c.FindLocal(name, define.Platform{}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := c.FindLocal("app", define.Platform{OS: "linux", Architecture: "s390x"}); !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), "--platform") {
		t.Errorf("of another platform: %v", err)
	}
}

func TestFindLocalAmbiguousID(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	for _, last := range []string{"0", "1"} {
		if _, err := st.Raw().CreateImage("abcdef"+strings.Repeat("0", 57)+last, nil, "", "{}", nil); err != nil {
			t.Fatal(err)
		}
	}
	c, _ := client(t, st, transport.Options{})
	if _, err := c.FindLocal("abcd", define.Platform{}); !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "2 images") {
		t.Errorf("%v", err)
	}
	// A name goes before the start of an ID.
	img := named(t, st, "localhost/abcdef:latest")
	if l, err := c.FindLocal("abcdef", define.Platform{}); err != nil || l.ID != img.ID {
		t.Errorf("%+v %v", l, err)
	}
}

func TestFindLocalInList(t *testing.T) {
	t.Parallel()
	st := imagetest.Store(t)
	var list []v1.Descriptor
	var want []define.ImageID
	for _, arch := range []string{"amd64", "arm64"} {
		img := imagetest.Put(t, st, imagetest.Spec{Platform: define.Platform{OS: "linux", Architecture: arch}, Layers: twoLayers})
		list = append(list, v1.Descriptor{MediaType: img.MediaType, Digest: img.Digest, Size: int64(len(img.Manifest)), Platform: &img.Platform})
		want = append(want, img.ID)
	}
	index := imagetest.Index(t, list)
	// As podman's "manifest create" records it: no layer, no config.
	_, err := st.Raw().CreateImage(strings.Repeat("e", 64), []string{"localhost/list:latest"}, "", "{}", &storage.ImageOptions{
		BigData: []storage.ImageBigDataOption{{Key: storage.ImageDigestBigDataKey, Data: index, Digest: digest.FromBytes(index)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := client(t, st, transport.Options{})
	for n, arch := range []string{"amd64", "arm64"} {
		if l, err := c.FindLocal("list", define.Platform{OS: "linux", Architecture: arch}); err != nil || l.ID != want[n] {
			t.Errorf("%s: %+v %v", arch, l, err)
		}
	}
	if _, err := c.FindLocal("list", define.Platform{OS: "linux", Architecture: "ppc64le"}); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func BenchmarkFindLocal(b *testing.B) {
	st := imagetest.Store(b)
	for i := range 1000 {
		named(b, st, fmt.Sprintf("localhost/app%d:latest", i))
	}
	c := transport.New(st, transport.Options{}, nil)
	for _, tc := range []struct {
		name string
		p    define.Platform
	}{{"app500", define.Platform{}}, {"app501", define.HostPlatform()}, {"ap500", define.Platform{}}} {
		b.Run(tc.name, func(b *testing.B) {
			for b.Loop() {
				c.FindLocal(tc.name, tc.p) //nolint:errcheck // one is meant to fail
			}
		})
	}
}
