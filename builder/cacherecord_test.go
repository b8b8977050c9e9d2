package builder

import (
	"reflect"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
)

// Only results that are the image's own layers, in their place, are recorded.
func TestCacheRecord(t *testing.T) {
	t.Parallel()
	infos := []layer.Info{{ID: "base"}, {ID: "one"}, {ID: "two"}}
	step := func(key string, parent, own define.LayerID) StepResult {
		return StepResult{Key: digest.Digest(key), Parent: parent, Layer: own}
	}
	r := cacheRecord([]StepResult{
		step("a", "base", "one"),
		step("b", "one", ""),
		step("c", "one", "two"),
		step("d", "", "base"),
		step("scratch", "", ""),
		step("other stage", "base", "other"),
		step("squashed", "gone", "two"),
		step("squashed, empty", "gone", ""),
		step("not on its parent", "base", "two"),
	}, infos)
	want := []image.CacheResult{
		{Key: "a", Layers: 2}, {Key: "b", Layers: 2, Empty: true}, {Key: "c", Layers: 3}, {Key: "d", Layers: 1}, {Key: "scratch", Empty: true},
	}
	if !reflect.DeepEqual(r.Results, want) {
		t.Errorf("%+v, want %+v", r.Results, want)
	}
	if r := cacheRecord(nil, infos); r != nil {
		t.Errorf("a record of no steps: %+v", r)
	}
}
