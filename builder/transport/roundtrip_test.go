package transport_test

import (
	"testing"

	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

var twoLayers = []imagetest.Files{{"etc/": "", "etc/one": "1"}, {"two": "2"}}

func TestPushPull(t *testing.T) {
	t.Parallel()
	for _, f := range []define.Format{define.FormatOCI, define.FormatDocker} {
		reg := registrytest.Start(t, registrytest.Options{})
		from, to := imagetest.Store(t), imagetest.Store(t)
		img := imagetest.Put(t, from, imagetest.Spec{Format: f, Layers: twoLayers})
		c, rec := client(t, from, plainHTTP)
		d, err := c.Push(t.Context(), img.ID, "docker://"+reg.Host()+"/a/b:v1", transport.PushOptions{Tags: []string{reg.Host() + "/a/b:v2", reg.Host() + "/other:v3"}})
		if err != nil {
			t.Fatal(err)
		}
		for repo, tag := range map[string]string{"a/b": "v2", "other": "v3"} {
			if m, ok := reg.Manifest(repo, tag); !ok || m.MediaType != img.MediaType {
				t.Errorf("%s: %s:%s has %q", f, repo, tag, m.MediaType)
			}
		}
		if _, ok := reg.Manifest("a/b", d.String()); !ok {
			t.Errorf("%s: the registry does not know the digest that Push returned", f)
		}
		done := 0
		for _, e := range rec.events {
			if e.Kind == define.EventTransfer && e.Done && e.Text == "push" {
				done++
			}
		}
		if done < 3 {
			t.Errorf("%s: %d finished transfers were told", f, done)
		}
		c2, _ := client(t, to, plainHTTP)
		name := reg.Host() + "/a/b:v1"
		got, err := c2.Pull(t.Context(), name, define.HostPlatform(), define.PullMissing)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != img.ID || got.Name != name {
			t.Errorf("%s: pulled %+v, want %s", f, got, img.ID)
		}
		loaded, err := image.Load(to, got.ID)
		if err != nil || loaded.Digest != d || loaded.TopLayer != img.TopLayer {
			t.Errorf("%s: %v: digest %s of layer %s, want %s of %s", f, err, loaded.Digest, loaded.TopLayer, d, img.TopLayer)
		}
	}
}
