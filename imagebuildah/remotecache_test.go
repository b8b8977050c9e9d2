package imagebuildah

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/define"
)

func TestCachePlace(t *testing.T) {
	t.Parallel()
	key := digest.FromString("key")
	hex := key.Encoded()
	for _, c := range []struct {
		kind, ref, name string
		err             error
	}{
		{"registry", "r.example/team/cache", "docker://r.example/team/cache:" + hex, nil},
		{"registry", "docker://r.example/team/cache", "docker://r.example/team/cache:" + hex, nil},
		{"registry", "r.example:5000/cache", "docker://r.example:5000/cache:" + hex, nil},
		{"registry", "r.example:5000/cache:main", "docker://r.example:5000/cache:main-" + hex, nil},
		{"registry", "r.example/cache:latest", "docker://r.example/cache:latest-" + hex, nil},
		{"registry", "r.example/cache:" + strings.Repeat("x", 64), "", define.ErrInvalid},
		{"registry", "r.example/cache@" + key.String(), "", define.ErrInvalid},
		{"registry", "cache", "", define.ErrInvalid},
		{"registry", "", "", define.ErrInvalid},
		{"local", "/some/dir", "oci:/some/dir:" + hex, nil},
		{"local", "dir:tag", "", define.ErrInvalid},
		{"s3", "bucket", "", define.ErrUnsupported},
	} {
		p, err := NewCachePlace(c.kind, c.ref)
		if !errors.Is(err, c.err) {
			t.Errorf("%s %s: error %v, want %v", c.kind, c.ref, err, c.err)
		}
		if err != nil || c.err != nil {
			continue
		}
		if got := p.name(key); got != c.name {
			t.Errorf("%s %s: %s, want %s", c.kind, c.ref, got, c.name)
		} else if tag := got[strings.LastIndex(got, ":")+1:]; len(tag) > 128 {
			t.Errorf("%s: a tag of %d characters", c.ref, len(tag))
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s  Settings
		ok bool
	}{
		{Settings{}, true},
		{Settings{Env: []string{"A=", "B=c"}, OSFeatures: []string{"win32k", "other-"}}, true},
		{Settings{Env: []string{"A"}}, false},
		{Settings{Env: []string{"=b"}}, false},
		{Settings{OSFeatures: []string{"-"}}, false},
	} {
		if err := c.s.check(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
}

// Results are written after the results whose layers they share, and no two
// wait for each other.
func TestExportOrder(t *testing.T) {
	t.Parallel()
	made := func(layer, parent define.LayerID) remoteResult {
		return remoteResult{parent: parent, result: cache.Result{Layer: layer}}
	}
	got := exportOrder([]remoteResult{made("b", "a"), made("a", ""), made("b", "a"), made("", "b"), made("c", "b"), made("d", "a"), made("x", "elsewhere")})
	if want := [][]int{{1}, nil, {0}, nil, {0}, {1}, nil}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
