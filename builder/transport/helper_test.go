package transport_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/define"
)

// TestMain keeps the configuration of the machine out of the tests.
func TestMain(m *testing.M) { imagetest.Main(m, environment) }

func environment() (cleanUp func()) {
	dir, err := os.MkdirTemp("", "transport-test-")
	if err != nil {
		panic(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			panic(err)
		}
		return path
	}
	for k, v := range map[string]string{
		"HOME": dir, "XDG_CONFIG_HOME": dir, "XDG_RUNTIME_DIR": dir, "XDG_CACHE_HOME": dir, "XDG_DATA_HOME": dir,
		"CONTAINERS_POLICY_JSON":     write("policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`),
		"CONTAINERS_REGISTRIES_CONF": write("registries.conf", "[aliases]\n\"aliased\" = \"registry.invalid/real/name\"\n"),
		"REGISTRY_AUTH_FILE":         "", "DOCKER_CONFIG": "", "TMPDIR": "",
	} {
		if v == "" {
			os.Unsetenv(k)
		} else {
			os.Setenv(k, v)
		}
	}
	return func() { os.RemoveAll(dir) }
}

// recorder keeps events.
type recorder struct {
	mu     sync.Mutex
	events []define.Event
}

func (r *recorder) Event(e define.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// texts returns the texts of the events of a kind.
func (r *recorder) texts(k define.EventKind) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		if e.Kind == k {
			b.WriteString(e.Text + "\n")
		}
	}
	return b.String()
}

func no() *bool { v := false; return &v }

// plainHTTP are the options for a registry without TLS, with short delays.
var plainHTTP = transport.Options{TLSVerify: no(), RetryDelay: time.Millisecond}

func client(t *testing.T, st *store.Store, o transport.Options) (*transport.Client, *recorder) {
	t.Helper()
	r := &recorder{}
	return transport.New(st, o, r), r
}

// pushed is a registry with an image as app:v1.
func pushed(t *testing.T, o registrytest.Options, spec imagetest.Spec) (*registrytest.Registry, define.ImageID) {
	t.Helper()
	reg := registrytest.Start(t, o)
	b := spec.Build(t)
	for _, blob := range append(b.Blobs, b.Config) {
		reg.PutBlob("app", blob)
	}
	reg.PutManifest("app", "v1", registrytest.Manifest{MediaType: b.MediaType, Data: b.Manifest})
	return reg, b.ID
}
