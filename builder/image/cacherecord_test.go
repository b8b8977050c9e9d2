package image

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
)

func results(n int) []CacheResult {
	all := make([]CacheResult, n)
	for i := range all {
		all[i] = CacheResult{Key: digest.FromString(fmt.Sprint(i)), Layers: 1, Empty: i > 0, Created: time.Unix(int64(i)+1, 5).UTC()}
	}
	return all
}

// A record is read back from the config, and from nothing else.
func TestCacheRecordRoundTrip(t *testing.T) {
	t.Parallel()
	img := full()
	plain, err := img.Encode(define.FormatOCI, []Layer{layerOf("x")})
	if err != nil {
		t.Fatal(err)
	}
	twice := results(2)
	img.Cache = NewCacheRecord(append(twice, twice[0]))
	e, err := img.Encode(define.FormatOCI, []Layer{layerOf("x")})
	if err != nil {
		t.Fatal(err)
	}
	rest, found := bytes.CutPrefix(e.Config, bytes.TrimSuffix(plain.Config, []byte("}")))
	if !found || !strings.HasPrefix(string(rest), `,"io.strata.cache":{"version":1,"results":[{"key":"sha256:`) {
		t.Errorf("the config is changed by more than a key at its end: %s", e.Config)
	}
	got, err := ParseCacheRecord(e.Config, 1)
	if err != nil || !reflect.DeepEqual(got.Results, results(2)) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseCacheRecord(plain.Config, 1); got != nil || err != nil {
		t.Errorf("without a record: %+v, %v", got, err)
	}
	back, _, err := ParseConfig(e.Config)
	if err != nil || back.Cache != nil || img.Clone().Cache != nil {
		t.Errorf("the record is carried on: %+v, %v", back, err)
	}
	if NewCacheRecord(nil) != nil {
		t.Error("a record of nothing")
	}
	if n := len(NewCacheRecord(results(MaxCacheResults + 3)).Results); n != MaxCacheResults {
		t.Errorf("%d results", n)
	}
}

func TestCacheRecordMalformed(t *testing.T) {
	t.Parallel()
	one := `{"key":"` + aDigest + `","layers":1,"created":"2020-01-01T00:00:00Z"}`
	for _, tc := range []struct {
		record string
		err    error
	}{
		{`{"version":1,"results":[` + one + `]}`, nil},
		{`{"version":1,"results":[` + strings.Replace(one, `"layers":1`, `"layers":0,"empty":true`, 1) + `]}`, nil},
		{`{"version":2,"anything":[]}`, define.ErrUnsupported},
		{`{"version":0,"results":[` + one + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + one + `],"more":1}`, define.ErrInvalid},
		{`{"version":1,"results":[` + one + `,` + one + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Replace(one, `"layers":1`, `"layers":0`, 1) + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Replace(one, `"layers":1`, `"layers":3`, 1) + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Replace(one, `"layers":1`, `"layers":-1,"empty":true`, 1) + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Replace(one, `"layers":1`, `"layers":1,"x":1`, 1) + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Replace(one, `,"created":"2020-01-01T00:00:00Z"`, "", 1) + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Replace(one, "sha256:", "sha512:", 1) + `]}`, define.ErrInvalid},
		{`{"version":1,"results":[` + strings.Repeat(one+",", MaxCacheResults) + one + `]}`, define.ErrInvalid},
		{`null`, define.ErrInvalid},
		{`[]`, define.ErrInvalid},
		{`"text"`, define.ErrInvalid},
	} {
		r, err := ParseCacheRecord([]byte(`{"io.strata.cache":`+tc.record+`}`), 2)
		if !errors.Is(err, tc.err) || (err == nil) != (r != nil) {
			t.Errorf("%.80s: %v, want %v", tc.record, err, tc.err)
		}
	}
	for _, config := range []string{``, `[]`, `{"io.strata.cache":1,"io.strata.cache":2}`, `{} {}`, strings.Repeat(" ", MaxDocument+1)} {
		if _, err := ParseCacheRecord([]byte(config), 1); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%.80s: %v", config, err)
		}
	}
	if r, err := ParseCacheRecord([]byte(`{"IO.strata.cache":{}}`), 1); r != nil || err != nil {
		t.Errorf("a key in other case: %v %v", r, err)
	}
}

func FuzzParseCacheRecord(f *testing.F) {
	f.Add([]byte(`{"io.strata.cache":{"version":1,"results":[{"key":"`+aDigest+`","layers":1,"created":"2020-01-01T00:00:00Z"}]}}`), 1)
	f.Add([]byte(`{"io.strata.cache":{"version":2}}`), 0)
	f.Fuzz(func(t *testing.T, data []byte, layers int) {
		r, err := ParseCacheRecord(data, layers)
		if err != nil {
			if !errors.Is(err, define.ErrInvalid) && !errors.Is(err, define.ErrUnsupported) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if r == nil {
			return
		}
		if len(r.Results) == 0 || len(r.Results) > MaxCacheResults {
			t.Errorf("%d results", len(r.Results))
		}
		for _, one := range r.Results {
			if one.Layers > layers || one.Layers < 0 || one.Layers == 0 && !one.Empty || one.Key.Validate() != nil {
				t.Errorf("let %+v through", one)
			}
		}
	})
}
