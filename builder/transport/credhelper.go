package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/homedir"
)

// A credential helper is a program, docker-credential-NAME, that is named in
// an auth file (credHelpers) or in registries.conf (credential-helpers) and
// answers "get" with credentials, and takes them with "store" and "erase".
// containers/image waits for one without an end, so we run it ourselves, and
// let containers/image do it only where we cannot stand in for it (mirrors),
// after it has answered us.

const (
	helperPrefix = "docker-credential-"
	// helperNote is after how long the user is told who is waited for: helpers
	// may ask the user to unlock a keyring.
	helperNote = 3 * time.Second
	// helperKept is how much of a helper's output is looked at.
	helperKept = 1 << 20
	// notInKeychain is what a helper says that has no credentials for a
	// registry (protocol of docker-credential-helpers).
	notInKeychain = "credentials not found in native keychain"
)

// noDropIns is a directory that there is not, for a registries.conf alone.
const noDropIns = "/proc/self/none"

// helperLimit is how long a helper may take; tests make it shorter.
var helperLimit = 20 * time.Second

// authFile is the part of an auth file that names helpers.
type authFile struct {
	path    string
	helpers map[string]string // by host
	there   bool
	old     bool // has the form of .dockercfg
}

// authPaths are the files that containers/image looks at, in its order, whether
// they are there or not, and docker's first form of one; login and logout
// change the first of them.
func authPaths(sys *types.SystemContext) (paths []string, old string) {
	switch {
	case sys.AuthFilePath != "":
		return []string{sys.AuthFilePath}, ""
	case sys.DockerCompatAuthFilePath != "":
		return []string{sys.DockerCompatAuthFilePath}, ""
	}
	first := fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid())
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		first = filepath.Join(dir, "containers/auth.json")
	}
	home := homedir.Get()
	or := func(variable, fallback string) string {
		if v := os.Getenv(variable); v != "" {
			return v
		}
		return filepath.Join(home, fallback)
	}
	return []string{first, filepath.Join(or("XDG_CONFIG_HOME", ".config"), "containers/auth.json"), filepath.Join(or("DOCKER_CONFIG", ".docker"), "config.json")},
		filepath.Join(home, ".dockercfg")
}

// authFiles are the files there are of authPaths.
func authFiles(sys *types.SystemContext) []authFile {
	paths, old := authPaths(sys)
	var files []authFile
	for _, p := range paths {
		if f := readAuthFile(p); f.there {
			files = append(files, f)
		}
	}
	if _, err := os.Lstat(old); err == nil {
		files = append(files, authFile{path: old, there: true, old: true})
	}
	return files
}

// readAuthFile reads the helpers that a file names. One that cannot be read
// names none, and is left to containers/image to complain about.
func readAuthFile(path string) authFile {
	b, err := os.ReadFile(path)
	var doc struct {
		CredHelpers map[string]string `json:"credHelpers"`
	}
	_ = json.Unmarshal(b, &doc)
	return authFile{path: path, helpers: doc.CredHelpers, there: !errors.Is(err, fs.ErrNotExist)}
}

// asked are the helpers that may be asked for the credentials of a host, with
// what names each of them.
func asked(sys *types.SystemContext, host string) (helpers []helper) {
	all, err := sysregistriesv2.CredentialHelpers(sys)
	if err != nil {
		return nil // containers/image says why
	}
	for _, name := range all {
		if name != sysregistriesv2.AuthenticationFileHelper {
			helpers = append(helpers, helper{name, "registries.conf"})
			continue
		}
		for _, f := range authFiles(sys) {
			if h := f.helpers[host]; h != "" {
				helpers = append(helpers, helper{h, f.path})
			}
		}
	}
	return helpers
}

// authorise returns sys with the credentials for a reference where a helper
// has a say in them, and sys itself otherwise.
func (c *Client) authorise(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (*types.SystemContext, error) {
	host := hostOf(ref)
	if host == "" || sys.DockerAuthConfig != nil {
		return sys, nil
	}
	if err := c.askForMirrors(ctx, sys, ref.DockerReference()); err != nil {
		return nil, err
	}
	if len(asked(sys, host)) == 0 {
		return sys, nil
	}
	auth, err := c.credentials(ctx, sys, ref.DockerReference().Name())
	if err != nil {
		return nil, err
	}
	own := *sys
	own.DockerAuthConfig = &auth
	return &own, nil
}

// askForMirrors asks the helpers of hosts that stand in for a reference's.
// containers/image looks for those credentials itself; here it is seen whether
// they can be had at all.
func (c *Client) askForMirrors(ctx context.Context, sys *types.SystemContext, named reference.Named) error {
	registry, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil || registry == nil {
		return nil //nolint: nilerr // containers/image says why
	}
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		return nil //nolint: nilerr
	}
	for _, s := range sources {
		if host := reference.Domain(s.Reference); host != reference.Domain(named) {
			if err := c.answers(ctx, sys, host); err != nil {
				return err
			}
		}
	}
	return nil
}

// answers asks the helpers of a host before containers/image does. That one
// has nothing, or fails, is not an error: that it does not answer is.
func (c *Client) answers(ctx context.Context, sys *types.SystemContext, host string) error {
	for _, h := range asked(sys, host) {
		var silent *silentHelper
		if _, err := c.get(ctx, h, host); errors.As(err, &silent) || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// credentials is config.GetCredentials with helpers that are bounded. key is
// a repository, a namespace or a host.
func (c *Client) credentials(ctx context.Context, sys *types.SystemContext, key string) (types.DockerAuthConfig, error) {
	host, _, _ := strings.Cut(key, "/")
	if len(asked(sys, host)) == 0 {
		auth, err := config.GetCredentials(sys, key)
		if err != nil {
			err = fmt.Errorf("credentials of %s: %w", key, plain(err))
		}
		return auth, err
	}
	all, err := sysregistriesv2.CredentialHelpers(sys)
	if err != nil {
		return types.DockerAuthConfig{}, fmt.Errorf("credentials of %s: %w", key, plain(err))
	}
	var failed error
	for _, name := range all {
		var auth types.DockerAuthConfig
		if name == sysregistriesv2.AuthenticationFileHelper {
			auth, err = c.inFiles(ctx, sys, key, host)
		} else {
			auth, err = c.get(ctx, helper{name, "registries.conf"}, host)
		}
		var silent *silentHelper
		switch {
		case errors.As(err, &silent), ctx.Err() != nil:
			return types.DockerAuthConfig{}, err
		case err != nil && failed == nil:
			failed = err
		case auth != types.DockerAuthConfig{}:
			return auth, nil
		}
	}
	return types.DockerAuthConfig{}, failed
}

// inFiles looks for credentials in the auth files. One that names a helper for
// the host has no others for it.
func (c *Client) inFiles(ctx context.Context, sys *types.SystemContext, key, host string) (types.DockerAuthConfig, error) {
	for _, f := range authFiles(sys) {
		var auth types.DockerAuthConfig
		var err error
		if h := f.helpers[host]; h != "" {
			auth, err = c.get(ctx, helper{h, f.path}, host)
		} else {
			// Of this file alone, and no helper is named elsewhere.
			alone := &types.SystemContext{AuthFilePath: f.path, SystemRegistriesConfPath: os.DevNull, SystemRegistriesConfDirPath: noDropIns}
			if f.old {
				alone.AuthFilePath, alone.LegacyFormatAuthFilePath = "", f.path
			}
			auth, err = config.GetCredentials(alone, key)
			if err != nil {
				err = fmt.Errorf("credentials of %s: %w", key, plain(err))
			}
		}
		if err != nil || auth != (types.DockerAuthConfig{}) {
			return auth, err
		}
	}
	return types.DockerAuthConfig{}, nil
}

// helper is a credential helper: its name and what names it.
type helper struct{ name, by string }

func (h helper) program() string { return helperPrefix + oneLine(h.name) }

// silentHelper is the error of a helper that does not answer.
type silentHelper struct {
	helper
	doing string
}

func (e *silentHelper) Error() string {
	return fmt.Sprintf("credential helper %s, %s: no answer within %v: repair or unlock what it asks, or take it out of %s",
		e.program(), e.doing, helperLimit, e.by)
}

// errNotInKeychain is that of a helper that has no credentials for a registry.
var errNotInKeychain = fmt.Errorf("%s: %w", notInKeychain, define.ErrNotFound)

// run runs a helper for one of the actions of its protocol and returns what it
// answers. It has a process group of its own, which is ended with ctx, after
// helperLimit, and with this process. doing says what is waited for; secrets
// are kept out of errors.
func (c *Client) run(ctx context.Context, h helper, action, doing, input string, secrets ...string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, helperLimit)
	defer cancel()
	note := time.AfterFunc(helperNote, func() {
		c.note(fmt.Sprintf("waiting for %s, %s", h.program(), doing))
	})
	defer note.Stop()
	out, said := &firstBytes{}, &firstBytes{}
	cmd := exec.CommandContext(limited, helperPrefix+h.name, action)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	// Pdeathsig is about the thread that starts the child.
	runtime.LockOSThread()
	err := cmd.Run()
	runtime.UnlockOSThread()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("credential helper %s, %s: %w", h.program(), doing, context.Cause(ctx))
	case limited.Err() != nil:
		return nil, &silentHelper{h, doing}
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("credential helper %s, %s: it is not in PATH: install it, or take it out of %s: %w", h.program(), doing, h.by, define.ErrNotFound)
	case err != nil && strings.TrimSpace(out.String()) == notInKeychain:
		return nil, errNotInKeychain
	case err != nil:
		// What a helper that fails writes is its reason.
		why := plain(errors.New(err.Error()+reason(out.String(), said.String())), secrets...)
		return nil, fmt.Errorf("credential helper %s, %s: %w", h.program(), doing, why)
	}
	return out.Bytes(), nil
}

// get asks a helper for the credentials of a host; no credentials are the zero
// value.
func (c *Client) get(ctx context.Context, h helper, host string) (types.DockerAuthConfig, error) {
	none := types.DockerAuthConfig{}
	out, err := c.run(ctx, h, "get", "asked for "+host, host)
	if errors.Is(err, errNotInKeychain) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out, &answer) != nil {
		return none, fmt.Errorf("credential helper %s, asked for %s: its answer is not the JSON of such a helper: %w", h.program(), host, define.ErrInvalid)
	}
	if answer.Username == "<token>" {
		return types.DockerAuthConfig{IdentityToken: answer.Secret}, nil
	}
	return types.DockerAuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}

// reason is the first text of a helper that is any, cut to a line's length.
func reason(texts ...string) string {
	for _, t := range texts {
		if t = oneLine(strings.TrimSpace(t)); t != "" {
			if len(t) > 200 {
				t = strings.ToValidUTF8(t[:200], "") + "..."
			}
			return ": " + t
		}
	}
	return ""
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct{ bytes.Buffer }

func (f *firstBytes) Write(b []byte) (int, error) {
	_, _ = f.Buffer.Write(b[:min(len(b), helperKept-f.Len())])
	return len(b), nil
}
