package imagebuildah

import (
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// A record is believed only about a layer that lies on what the step does.
func TestInlinePart(t *testing.T) {
	t.Parallel()
	var in inlineImage
	in.image = &transport.Remote{Manifest: &image.Manifest{MediaType: v1.MediaTypeImageManifest}}
	var all []image.Layer
	for _, text := range []string{"base", "one", "two"} {
		d := digest.FromString(text)
		in.diffIDs = append(in.diffIDs, d)
		in.image.Manifest.Layers = append(in.image.Manifest.Layers, image.Layer{Digest: digest.FromString("packed " + text), Size: 1, MediaType: v1.MediaTypeImageLayerGzip})
		all = append(all, image.Layer{DiffID: d, Digest: d, Size: 2})
	}
	for _, c := range []struct {
		layers int
		below  []image.Layer
		ok     bool
	}{
		{1, nil, true},
		{2, all[:1], true},
		{3, all[:2], true},
		{3, all[:1], false},
		{2, all[:2], false},
		{2, all[1:2], false},
		{1, all[:1], false},
	} {
		enc, err := in.part(digest.FromString("key"), image.CacheResult{Layers: c.layers, Created: time.Unix(1, 0)}, define.HostPlatform(), c.below)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, define.ErrInvalid) {
			t.Errorf("layer %d on %d: %v", c.layers, len(c.below), err)
		}
		if err != nil {
			continue
		}
		m, err := image.ParseManifest(enc.Manifest)
		if err != nil || len(m.Layers) != c.layers || m.Layers[c.layers-1].Digest != in.image.Manifest.Layers[c.layers-1].Digest {
			t.Errorf("layer %d: %s %v", c.layers, enc.Manifest, err)
		}
	}
}
