package transport_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

// bigLayer does not fit one packet, nor one read.
var bigLayer = []imagetest.Files{{"big": strings.Repeat("0123456789abcdef", 1<<16)}}

func TestPullSurvives(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]registrytest.Fault{
		"manifest 500":          {Path: "/manifests/", Status: 500, Times: 2},
		"manifest 502":          {Path: "/manifests/", Status: 502, Times: 1},
		"ping 503":              {Path: "^/v2/$", Status: 503, Times: 2},
		"blob 503":              {Path: "/blobs/", Status: 503, Times: 2},
		"blob 504":              {Path: "/blobs/", Status: 504, Times: 1},
		"connection dropped":    {Path: "/manifests/", Drop: true, Times: 2},
		"blob cut":              {Path: "/blobs/", Cut: 300000, Times: 2},
		"blob cut at its start": {Path: "/blobs/", CutAt0: true, Times: 1},
		"429 with Retry-After":  {Path: "/manifests/", Status: 429, Header: http.Header{"Retry-After": {"0"}}, Times: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, id := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: bigLayer})
			reg.Inject(fault)
			c, _ := client(t, imagetest.Store(t), plainHTTP)
			l, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing)
			if err != nil || l.ID != id {
				t.Errorf("%+v %v", l, err)
			}
		})
	}
}

// TestPullRefuses lets the registry lie. Nothing may be stored then, and the
// error is one line.
func TestPullRefuses(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for name, tc := range map[string]struct {
		fault registrytest.Fault
		want  string
	}{
		"layer changed":       {registrytest.Fault{Method: "GET", Path: "/blobs/sha256", Edit: flip}, ""},
		"layer longer":        {registrytest.Fault{Method: "GET", Path: "/blobs/sha256", Edit: func(b []byte) []byte { return append(b, 0) }}, ""},
		"layer shorter":       {registrytest.Fault{Method: "GET", Path: "/blobs/sha256", Edit: func(b []byte) []byte { return b[:len(b)-1] }}, ""},
		"layer empty":         {registrytest.Fault{Method: "GET", Path: "/blobs/sha256", Edit: func([]byte) []byte { return nil }}, ""},
		"manifest is HTML":    {registrytest.Fault{Path: "/manifests/", Edit: func([]byte) []byte { return []byte("<html>") }}, ""},
		"manifest is endless": {registrytest.Fault{Path: "/manifests/", Endless: true, Body: strings.Repeat(" ", 1<<16)}, ""},
		"manifest 404":        {registrytest.Fault{Path: "/manifests/", Status: 404}, ""},
		"manifest 403":        {registrytest.Fault{Path: "/manifests/", Status: 403, Body: "\x1b[31mgo\naway"}, ""},
		"always 500":          {registrytest.Fault{Path: "/manifests/", Status: 500}, "500"},
		"blob always 503":     {registrytest.Fault{Path: "/blobs/", Status: 503}, "503"},
		"not a registry":      {registrytest.Fault{Status: 404, Body: "nothing here"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: bigLayer})
			reg.Inject(tc.fault)
			st := imagetest.Store(t)
			c, _ := client(t, st, plainHTTP)
			_, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), reg.Host()) {
				t.Fatalf("error %v, want %q and the registry in it", err, tc.want)
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("not one clean line: %q", err)
			}
			if images, _ := st.Raw().Images(); len(images) != 0 {
				t.Errorf("stored %v", images)
			}
		})
	}
}

// TestPullRefusesManifests serves documents that are wrong in themselves.
func TestPullRefusesManifests(t *testing.T) {
	t.Parallel()
	good := imagetest.Spec{Layers: twoLayers}.Build(t)
	edit := func(change func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(good.Manifest, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	setDigest := func(what string, value string) []byte {
		return edit(func(m map[string]any) {
			if what == "config" {
				m["config"].(map[string]any)["digest"] = value
			} else {
				m["layers"].([]any)[0].(map[string]any)["digest"] = value
			}
		})
	}
	documents := map[string][]byte{
		"both image and index": edit(func(m map[string]any) { m["manifests"] = []any{} }),
		"another media type":   edit(func(m map[string]any) { m["mediaType"] = v1.MediaTypeImageIndex }),
		"null":                 []byte("null"),
		"a list":               []byte("[]"),
		"no config":            edit(func(m map[string]any) { delete(m, "config") }),
		"a config not there":   setDigest("config", digest.FromString("x").String()),
	}
	for _, d := range []string{"sha256:../../x", "", "md5:d41d8cd98f00b204e9800998ecf8427e", "SHA256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("a", 10<<10), "sha256:" + strings.Repeat("A", 64)} {
		documents["config digest "+d[:min(20, len(d))]] = setDigest("config", d)
		documents["layer digest "+d[:min(20, len(d))]] = setDigest("layers", d)
	}
	for name, data := range documents {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
			reg.PutManifest("app", "v1", registrytest.Manifest{MediaType: v1.MediaTypeImageManifest, Data: data})
			st := imagetest.Store(t)
			c, _ := client(t, st, plainHTTP)
			_, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing)
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
			if images, _ := st.Raw().Images(); len(images) != 0 {
				t.Errorf("stored %v", images)
			}
			for _, q := range reg.Requests() {
				if strings.Contains(q.Path, "..") {
					t.Errorf("asked for %s", q.Path)
				}
			}
		})
	}
}

// TestPullDiffIDMismatch: the blobs are what the manifest says, but the
// config promises other contents.
func TestPullDiffIDMismatch(t *testing.T) {
	t.Parallel()
	b := imagetest.Spec{Layers: twoLayers}.Build(t)
	reg := registrytest.Start(t, registrytest.Options{})
	for _, blob := range b.Blobs {
		reg.PutBlob("app", blob)
	}
	wrong := bytes.Replace(b.Config, []byte(b.Layers[0].DiffID), []byte(digest.FromString("other")), 1)
	d := reg.PutBlob("app", wrong)
	man := bytes.Replace(b.Manifest, []byte(digest.FromBytes(b.Config)), []byte(d), 1)
	reg.PutManifest("app", "v1", registrytest.Manifest{MediaType: b.MediaType, Data: man})
	st := imagetest.Store(t)
	c, _ := client(t, st, plainHTTP)
	_, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.HostPlatform(), define.PullMissing)
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
	if images, _ := st.Raw().Images(); len(images) != 0 {
		t.Errorf("stored %v", images)
	}
}

func TestPushSurvives(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		o     registrytest.Options
		fault registrytest.Fault
	}{
		"upload start 500": {fault: registrytest.Fault{Method: "POST", Path: "/uploads/", Status: 500, Times: 2}},
		"upload 503":       {fault: registrytest.Fault{Method: "PATCH", Path: "/uploads/", Status: 503, Times: 2}},
		"upload dropped":   {fault: registrytest.Fault{Method: "PATCH", Path: "/uploads/", Drop: true, Times: 2}},
		"finish 502":       {fault: registrytest.Fault{Method: "PUT", Path: "/uploads/", Status: 502, Times: 1}},
		"manifest 500":     {fault: registrytest.Fault{Method: "PUT", Path: "/manifests/", Status: 500, Times: 1}},
		"mount refused":    {o: registrytest.Options{NoMount: true}},
		"token expires":    {o: registrytest.Options{Username: "u", Password: "p", Bearer: true, TokenTTL: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.Start(t, tc.o)
			if tc.fault.Path != "" {
				reg.Inject(tc.fault)
			}
			st := imagetest.Store(t)
			o := plainHTTP
			o.Creds = "u:p"
			c, _ := client(t, st, o)
			d, err := c.Push(t.Context(), imagetest.Put(t, st, imagetest.Spec{Layers: bigLayer}).ID, reg.Host()+"/app:v1", transport.PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if m, ok := reg.Manifest("app", "v1"); !ok || digest.FromBytes(m.Data) != d {
				t.Errorf("the registry has %s", m.Data)
			}
		})
	}
}

func TestPushFails(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]registrytest.Fault{
		"forbidden":      {Method: "POST", Path: "/uploads/", Status: 403},
		"always 500":     {Method: "PATCH", Path: "/uploads/", Status: 500},
		"manifest 400":   {Method: "PUT", Path: "/manifests/", Status: 400},
		"no room":        {Method: "PUT", Path: "/uploads/", Status: 507},
		"Location wrong": {Method: "POST", Path: "/uploads/", Status: 202, Header: http.Header{"Location": {"file:///etc/passwd"}}},
		"metadata":       {Method: "POST", Path: "/uploads/", Status: 202, Header: http.Header{"Location": {"http://169.254.169.254/x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.Start(t, registrytest.Options{})
			reg.Inject(fault)
			st := imagetest.Store(t)
			c, _ := client(t, st, plainHTTP)
			_, err := c.Push(t.Context(), imagetest.Put(t, st, imagetest.Spec{Layers: bigLayer}).ID, reg.Host()+"/app:v1", transport.PushOptions{})
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
			if tags := reg.Tags("app"); len(tags) != 0 {
				t.Errorf("the tag was made: %v", tags)
			}
		})
	}
}

// TestRetryStops counts attempts.
func TestRetryStops(t *testing.T) {
	t.Parallel()
	for retry, want := range map[int]int{-1: 1, 1: 2, 0: 4} {
		reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
		reg.Inject(registrytest.Fault{Path: "/manifests/", Status: 500})
		o := plainHTTP
		o.Retry = retry
		c, rec := client(t, imagetest.Store(t), o)
		if _, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.Platform{}, define.PullMissing); err == nil {
			t.Error("no error")
		}
		if n := reg.Count("GET", "/manifests/"); n != want {
			t.Errorf("Retry %d made %d attempts, want %d", retry, n, want)
		}
		if n := strings.Count(rec.texts(define.EventNote), "trying again"); n != want-1 {
			t.Errorf("Retry %d told of %d retries, want %d", retry, n, want-1)
		}
	}
}

// TestRetryNotForAnswers: what the registry says clearly is not asked again.
func TestRetryNotForAnswers(t *testing.T) {
	t.Parallel()
	for _, code := range []int{400, 403, 404, 501} {
		reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: twoLayers})
		reg.Inject(registrytest.Fault{Path: "/manifests/", Status: code})
		c, _ := client(t, imagetest.Store(t), plainHTTP)
		if _, err := c.Pull(t.Context(), reg.Host()+"/app:v1", define.Platform{}, define.PullMissing); err == nil {
			t.Error("no error")
		}
		if n := reg.Count("GET", "/manifests/"); n != 1 {
			t.Errorf("%d was asked %d times", code, n)
		}
	}
}

// TestNothingLeaks ends pulls in all ways and looks for goroutines.
func TestNothingLeaks(t *testing.T) {
	reg, _ := pushed(t, registrytest.Options{}, imagetest.Spec{Layers: bigLayer})
	st := imagetest.Store(t)
	c, _ := client(t, st, plainHTTP)
	before := runtime.NumGoroutine()
	for range 5 {
		reg.Inject(registrytest.Fault{Path: "/blobs/", Rate: 100_000})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		if _, err := c.Pull(ctx, reg.Host()+"/app:v1", define.Platform{}, define.PullMissing); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cancel()
		reg.Behave()
	}
	for range 100 {
		if runtime.NumGoroutine() <= before+4 { // the server's own
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}
