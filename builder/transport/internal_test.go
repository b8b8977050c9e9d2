package transport

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
)

type notes struct {
	mu   sync.Mutex
	text []string
}

func (n *notes) Event(e define.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = append(n.text, string(e.Kind)+": "+e.Text)
}

// etc makes a root directory with the files in its etc/containers.
func etc(t *testing.T, files map[string]string) *types.SystemContext {
	t.Helper()
	t.Setenv("CONTAINERS_POLICY_JSON", "")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	root := t.TempDir()
	dir := filepath.Join(root, "etc", "containers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &types.SystemContext{RootForImplicitAbsolutePaths: root, UserShortNameAliasConfPath: filepath.Join(root, "aliases.conf")}
}

func TestPolicyDefault(t *testing.T) {
	n := &notes{}
	c := New(nil, Options{}, n)
	for range 2 {
		p, err := c.policy(etc(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		p.Destroy()
	}
	if len(n.text) != 1 || !strings.Contains(n.text[0], "policy.json") {
		t.Errorf("told %q, want it once", n.text)
	}
	n.text = nil
	p, err := c.policy(etc(t, map[string]string{"policy.json": `{"default":[{"type":"reject"}]}`}))
	if err != nil {
		t.Fatal(err)
	}
	p.Destroy()
	if len(n.text) != 0 {
		t.Errorf("told %q of a policy that is there", n.text)
	}
	if _, err := c.policy(etc(t, map[string]string{"policy.json": "{"})); err == nil {
		t.Error("a damaged policy was accepted")
	}
}

func TestResolve(t *testing.T) {
	for _, tc := range []struct{ conf, name, want, why string }{
		{"-", "busybox", "docker.io/library/busybox:latest", "no registries.conf"},
		{"-", "a/b:v1", "docker.io/a/b:v1", "no registries.conf"},
		{"-", "host:5000/x", "host:5000/x:latest", ""},
		{"", "busybox", "docker.io/library/busybox:latest", "no registries.conf"},
		{`unqualified-search-registries = ["one.example", "two.example"]`, "x", "one.example/x:latest two.example/x:latest", "search registries of"},
		{`unqualified-search-registries = []`, "x", "", "allows no search"},
		{"unqualified-search-registries = [\"one.example\"]\n[aliases]\n\"x\" = \"two.example/y\"", "x:v1", "two.example/y:v1", "alias"},
		{"[[registry]]\nlocation = 1", "x", "", "registries.conf"},
		{"-", "x@sha256:" + strings.Repeat("a", 64), "docker.io/library/x@sha256:" + strings.Repeat("a", 64), "no registries.conf"},
	} {
		files := map[string]string{"registries.conf": tc.conf}
		if tc.conf == "-" {
			files = nil
		}
		m, err := New(nil, Options{}, nil).resolve(etc(t, files), tc.name)
		var got []string
		for _, n := range m.names {
			got = append(got, n.String())
		}
		if tc.want == "" {
			if err == nil || !strings.Contains(err.Error(), tc.why) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s with %q: %v", tc.name, tc.conf, err)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != tc.want || !strings.Contains(m.why, tc.why) {
			t.Errorf("%s with %q: %q (%s) %v, want %s", tc.name, tc.conf, got, m.why, err, tc.want)
		}
	}
}

func TestEnforcing(t *testing.T) {
	sys := etc(t, map[string]string{"registries.conf": "unqualified-search-registries = [\"one.example\", \"two.example\"]\nshort-name-mode = \"enforcing\""})
	m, err := New(nil, Options{}, nil).resolve(sys, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := oneCandidate(sys, "x", m.names); !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), "two.example") {
		t.Errorf("%v", err)
	}
	if err := oneCandidate(sys, "x", m.names[:1]); err != nil {
		t.Error(err)
	}
}

func TestWatchSilence(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		events []types.ProgressProperties
		ends   bool
	}{
		"nothing begins": {nil, true},
		"a blob stops": {[]types.ProgressProperties{
			{Event: types.ProgressEventNewArtifact, Artifact: types.BlobInfo{Digest: "sha256:a", Size: 10}},
			{Event: types.ProgressEventRead, Artifact: types.BlobInfo{Digest: "sha256:a", Size: 10}, Offset: 5},
		}, true},
		"a blob is being stored": {[]types.ProgressProperties{
			{Event: types.ProgressEventNewArtifact, Artifact: types.BlobInfo{Digest: "sha256:a", Size: 10}},
			{Event: types.ProgressEventRead, Artifact: types.BlobInfo{Digest: "sha256:a", Size: 10}, Offset: 10},
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &notes{}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			w := &watch{listener: n, action: "pull", remote: "host", cancel: cancel, note: 30 * time.Millisecond, limit: 60 * time.Millisecond}
			events, stop, stopped := make(chan types.ProgressProperties), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				w.run(events, stop)
			}()
			for _, e := range tc.events {
				events <- e
			}
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
			close(stop)
			<-stopped
			if ended := errors.Is(context.Cause(ctx), errSilence); ended != tc.ends {
				t.Errorf("ended: %v, want %v", ended, tc.ends)
			}
			if text := strings.Join(n.text, "\n"); !strings.Contains(text, "note: pull: waiting for host") {
				t.Errorf("told %q", text)
			}
		})
	}
}

func TestWatchEvents(t *testing.T) {
	t.Parallel()
	var got []define.Event
	w := &watch{listener: define.ListenerFunc(func(e define.Event) { got = append(got, e) }), action: "push", blobs: map[string]*blob{}}
	b := types.BlobInfo{Digest: "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", Size: 1000}
	now := time.Now()
	w.event(types.ProgressProperties{Event: types.ProgressEventNewArtifact, Artifact: b}, now)
	for i := range 10 { // 25 ms apart: every fourth is told
		w.event(types.ProgressProperties{Event: types.ProgressEventRead, Artifact: b, Offset: uint64(i * 100)}, now.Add(time.Duration(i*25)*time.Millisecond))
	}
	w.event(types.ProgressProperties{Event: types.ProgressEventDone, Artifact: b, Offset: 1000}, now.Add(time.Second))
	if len(got) != 4 {
		t.Errorf("%d events were told: %+v", len(got), got)
	}
	if last := got[len(got)-1]; !last.Done || last.Current != 1000 || last.Total != 1000 || last.Object != "2d711642b726" || last.Text != "push" || last.Kind != define.EventTransfer {
		t.Errorf("the last is %+v", last)
	}
}

func TestTransientCauses(t *testing.T) {
	t.Parallel()
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, os.ErrNotExist, define.ErrInvalid, errors.New("digest mismatch")} {
		if transient(err) {
			t.Errorf("%v is worth a retry", err)
		}
	}
}

func TestRegistryKey(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://h:1/": "h:1 h:1", "h/ns": "h/ns h", "http://h": "h h", "docker://h": "h h",
	} {
		key, host, err := registryKey(in)
		if err != nil || key+" "+host != want {
			t.Errorf("%s: %s %s %v", in, key, host, err)
		}
	}
}

func TestAuthFileChoice(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	t.Setenv("DOCKER_CONFIG", dir)
	sys := &types.SystemContext{}
	chooseDefaultAuthFile(sys)
	if sys.DockerCompatAuthFilePath != "" || sys.AuthFilePath != "" {
		t.Errorf("a config.json that is not there was chosen: %+v", sys)
	}
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	chooseDefaultAuthFile(sys)
	if sys.DockerCompatAuthFilePath != config {
		t.Errorf("chose %q", sys.DockerCompatAuthFilePath)
	}
	sys = &types.SystemContext{}
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "auth.json"))
	chooseDefaultAuthFile(sys)
	if sys.AuthFilePath != filepath.Join(dir, "auth.json") || sys.DockerCompatAuthFilePath != "" {
		t.Errorf("chose %q and %q", sys.AuthFilePath, sys.DockerCompatAuthFilePath)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"busybox", "host:5000/a/b:tag", "oci:dir:tag", "docker://x", "a@sha256:x", "\xff", "A b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		IsTransport(s)
		nearest(s, []string{"localhost/app:latest", s})
		full, err := NormalizeTag(s)
		if err != nil {
			if !errors.Is(err, define.ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q: %q", s, err)
			}
			return
		}
		if again, err := NormalizeTag(full); err != nil || again != full {
			t.Errorf("%q became %q, and that %q (%v)", s, full, again, err)
		}
	})
}

func FuzzBlobs(f *testing.F) {
	d := "sha256:" + strings.Repeat("a", 64)
	f.Add([]byte(d + " " + d + " 10\n" + d))
	f.Fuzz(func(t *testing.T, data []byte) {
		for form, b := range parseBlobs(data) {
			if form.diffID.Validate() != nil || form.algo == "" || b.Digest.Validate() != nil || b.Size <= 0 {
				t.Errorf("%+v %+v", form, b)
			}
		}
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		insecure bool
		urls     string // the last is judged
		ok       bool
	}{
		{false, "https://r/v2/", true},
		{false, "http://r/v2/", false},
		{false, "https://r/v2/ http://r/v2/", true},
		{false, "https://r/v2/ http://r/v2/ http://cdn/x", true},
		{false, "https://r/v2/ http://cdn/x", false},
		{false, "https://r/v2/ http://cdn/v2/", false},
		{true, "http://cdn/x", true},
		{true, "http://169.254.169.254/x", false},
		{true, "http://[::ffff:169.254.169.254]/x", false},
		{true, "http://[fe80::1]/x", false},
		{true, "http://127.0.0.1/x", true},
		{true, "ftp://r/x", false},
		{true, "file:///etc/passwd", false},
	} {
		g := &guard{insecure: tc.insecure}
		var err error
		for s := range strings.FieldsSeq(tc.urls) {
			u, parseErr := url.Parse(s)
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			_, err = g.proxy(u)
		}
		if (err == nil) != tc.ok {
			t.Errorf("%v %s: %v", tc.insecure, tc.urls, err)
		}
	}
}

func TestAbandonable(t *testing.T) {
	t.Parallel()
	if data, err := abandonable(t.Context(), func() ([]byte, error) { return []byte("x"), nil }); err != nil || string(data) != "x" {
		t.Errorf("%s %v", data, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := abandonable(ctx, func() ([]byte, error) { return nil, define.ErrInUse }); !errors.Is(err, define.ErrInUse) {
		t.Errorf("%v", err)
	}
}
