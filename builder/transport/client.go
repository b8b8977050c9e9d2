package transport

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
)

// Options is how to reach others; the zero value is the user's configuration.
type Options struct {
	// Authfile holds credentials; "": REGISTRY_AUTH_FILE, else DOCKER_CONFIG,
	// else the places of containers-auth.json(5) in their order.
	Authfile        string
	CertDir         string
	Creds           string // user[:password]
	TLSVerify       *bool  // nil: as registries.conf says, verified by default
	SignaturePolicy string // path of a policy.json
	Retry           int    // attempts after the first; negative: none; 0: 3
	// RetryDelay is before the first retry and doubles for each; 0: 1 s.
	RetryDelay time.Duration
	// BigFilesTemporaryDir is where blobs wait; "": TMPDIR, else /var/tmp.
	BigFilesTemporaryDir string
	// CompatAuthfile is a file in docker's form (config.json) that Login and
	// Logout use in place of Authfile.
	CompatAuthfile string
	// RegistriesConf is a registries.conf in place of the user's, without
	// RegistriesConfDir; RegistriesConfDir has further files of that form in
	// place of registries.conf.d; ShortNameAliases is the file of the aliases
	// that other tools learn.
	RegistriesConf, RegistriesConfDir, ShortNameAliases string
	// RemoveSignatures leaves the signatures of pulled images behind.
	RemoveSignatures bool
	// Sources restricts which registries are asked; nil restricts nothing.
	Sources *RegistrySources
	// Decryption opens pulled images that are encrypted; nil: they are errors.
	Decryption *Decryption
	// Layer opens the tar stream of a layer of the store; for those that it
	// does not know (define.ErrUnsupported), and when it is nil, the storage
	// library makes the stream, and copies it to BigFilesTemporaryDir. What is
	// read is compared with the layer's diff ID.
	Layer func(define.LayerID) (io.ReadCloser, error)
}

// Client moves images. It is safe for concurrent use.
type Client struct {
	st       *store.Store
	o        Options
	listener define.Listener

	said sync.Map // notes that were given, so that each is given once

	mu      sync.Mutex
	pulling map[string]chan struct{} // closed when the pull of that name ends
}

// New returns a client for the store; events go to l, which may be nil. It
// reads nothing and cannot fail: configuration is read when it is needed.
func New(st *store.Store, o Options, l define.Listener) *Client {
	return &Client{st: st, o: o, listener: l, pulling: map[string]chan struct{}{}}
}

func (c *Client) raw() storage.Store { return c.st.Raw() }

// note tells the user something once in the life of the client.
func (c *Client) note(text string) {
	if _, again := c.said.LoadOrStore(text, true); !again {
		define.Emit(c.listener, define.Event{Kind: define.EventNote, Text: text})
	}
}

func (c *Client) warn(text string) {
	define.Emit(c.listener, define.Event{Kind: define.EventWarning, Text: text})
}

// system is containers/image's view of the options, for the platform.
func (c *Client) system(p define.Platform) (*types.SystemContext, error) {
	sys := &types.SystemContext{
		DockerCertPath:       c.o.CertDir,
		SignaturePolicyPath:  c.o.SignaturePolicy,
		BigFilesTemporaryDir: c.o.BigFilesTemporaryDir,
		// Setting any of these replaces what containers/image finds out about
		// the host, so they are set together or not at all.
		OSChoice: p.OS, ArchitectureChoice: p.Architecture, VariantChoice: p.Variant,
		DockerRegistryUserAgent: "strata",
	}
	sys.SystemRegistriesConfPath, sys.SystemRegistriesConfDirPath = c.o.RegistriesConf, c.o.RegistriesConfDir
	sys.UserShortNameAliasConfPath = c.o.ShortNameAliases
	if sys.BigFilesTemporaryDir == "" {
		sys.BigFilesTemporaryDir = temporaryDir()
	}
	if v := c.o.TLSVerify; v != nil {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!*v)
		sys.OCIInsecureSkipTLSVerify = !*v
	}
	sys.DockerProxy = (&guard{insecure: sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue}).proxy
	if c.o.Creds != "" {
		user, password, _ := strings.Cut(c.o.Creds, ":")
		sys.DockerAuthConfig = &types.DockerAuthConfig{Username: user, Password: password}
	}
	if err := c.chooseAuthFile(sys); err != nil {
		return nil, err
	}
	return sys, nil
}

// temporaryDir is where containers/image would put blobs, or the system's
// temporary directory where that does not exist, as in small containers.
func temporaryDir() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
		return dir
	}
	if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
		return "/var/tmp"
	}
	return os.TempDir()
}

// turn waits until no other goroutine pulls the key, and makes the caller
// the one that does. Stages of one build often share a base.
func (c *Client) turn(ctx context.Context, key string) (done func(), err error) {
	for {
		c.mu.Lock()
		busy, ok := c.pulling[key]
		if !ok {
			mine := make(chan struct{})
			c.pulling[key] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.pulling, key)
				c.mu.Unlock()
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-busy:
		}
	}
}
