package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

// transfer is one copy of an image.
type transfer struct {
	action   string // "pull", "push" or "export"
	name     string // what the user calls the image, for errors
	src, dst types.ImageReference
	opts     *copy.Options
	// allowed: the policy was asked before, about the image that src is a
	// part of.
	allowed bool
	// only is the blob whose progress is told; "": all are.
	only digest.Digest
}

// copy runs the transfer with progress and retries and returns the manifest
// that the destination has now.
func (c *Client) copy(ctx context.Context, t transfer) ([]byte, error) {
	ask := c.policy
	if t.allowed {
		ask = func(*types.SystemContext) (*signature.PolicyContext, error) {
			return signature.NewPolicyContext(acceptAnything())
		}
	}
	policy, err := ask(t.opts.SourceCtx)
	if err != nil {
		return nil, err
	}
	defer policy.Destroy()

	// Its cache of blobs needs cgo and is replaced by present.go; but it makes
	// the directory all the same, and must not do so elsewhere on the disk.
	if dir, err := c.st.StateDir(); err == nil {
		t.opts.DestinationCtx.BlobInfoCacheDir = dir
	}
	remote := hostOf(t.src)
	if remote == "" {
		remote = hostOf(t.dst)
	}
	defer boundMemory()()
	var manifest []byte
	err = c.retry(ctx, t.action+" of "+t.name, func() error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		events, stop, stopped := make(chan types.ProgressProperties, 64), make(chan struct{}), make(chan struct{})
		w := &watch{listener: c.listener, action: t.action, remote: remote, cancel: cancel, note: silenceNote, limit: silenceLimit, only: string(t.only)}
		go func() {
			defer close(stopped)
			w.run(events, stop)
		}()
		t.opts.Progress = events
		// Every read is reported; watch thins them out. Only so does it know
		// whether a blob is complete.
		t.opts.ProgressInterval = 1
		var err error
		manifest, err = abandonable(ctx, func() ([]byte, error) { return copy.Image(ctx, policy, t.dst, t.src, t.opts) })
		close(stop)
		<-stopped
		if err != nil && errors.Is(context.Cause(ctx), errSilence) {
			return context.Cause(ctx)
		}
		return err
	})
	if err != nil {
		return nil, c.explainCopy(ctx, t, remote, err)
	}
	return manifest, nil
}

// grace is how long a cancelled copy may take to end.
const grace = 10 * time.Second

// abandonable runs f and, once ctx has ended, waits for it for a while only:
// containers/image runs credential helpers, which may hang, without a limit.
func abandonable(ctx context.Context, f func() ([]byte, error)) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		data, err := f()
		ended <- result{data, err}
	}()
	select {
	case r := <-ended:
		return r.data, r.err
	case <-ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case r := <-ended:
		return r.data, r.err
	case <-t.C:
		return nil, context.Cause(ctx)
	}
}

// explainCopy makes one line of containers/image's error and adds the remedy
// where there is one.
func (c *Client) explainCopy(ctx context.Context, t transfer, remote string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s of %s: %w", t.action, t.name, context.Cause(ctx))
	}
	_, password, _ := strings.Cut(c.o.Creds, ":")
	text := plain(err, password)
	if strings.Contains(t.name, remote) {
		text.text = strings.TrimPrefix(text.text, "registry "+remote+": ")
	}
	wrap := func(remedy string, kind error) error {
		if kind == nil {
			return fmt.Errorf("%s of %s: %w%s", t.action, t.name, text, remedy)
		}
		return fmt.Errorf("%s of %s: %w%s: %w", t.action, t.name, text, remedy, kind)
	}
	var unauthorized docker.ErrUnauthorizedForCredentials
	switch s := err.Error(); {
	case errors.As(err, &unauthorized), strings.Contains(s, "unauthorized"), strings.Contains(s, "authentication required"):
		return wrap("; log in with: strata login "+remote, nil)
	case tlsRemedy(err, remote) != "":
		return wrap(tlsRemedy(err, remote), nil)
	case strings.Contains(s, "manifest unknown"), strings.Contains(s, "name unknown"):
		return wrap("; check the name and the tag", define.ErrNotFound)
	case strings.Contains(s, "no such host"), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return wrap("; check the registry's name, and the network", nil)
	case c.o.Decryption == nil && t.action == "pull" && strings.Contains(s, "does not match config's DiffID"):
		return wrap("; if its layers are encrypted, pass --decryption-key", nil)
	case errors.Is(err, fs.ErrNotExist) && t.src != nil && t.src.Transport() == transports[kindOCI]:
		return wrap("; is it a directory with an OCI layout?", define.ErrNotFound)
	case errors.Is(err, syscall.ENOSPC):
		return wrap("; free space there or choose another directory with TMPDIR", nil)
	case strings.Contains(s, "no image found in image index for architecture"), strings.Contains(s, "no image found in manifest list for architecture"):
		return wrap("", define.ErrNotFound)
	}
	return wrap("", nil)
}

// tlsRemedy is what to do about a registry whose TLS does not do, or "".
func tlsRemedy(err error, host string) string {
	switch s := err.Error(); {
	case strings.Contains(s, "server gave HTTP response to HTTPS client"):
		return "; the registry speaks plain HTTP: pass --tls-verify=false or set insecure for it in registries.conf"
	case strings.Contains(s, "certificate has expired or is not yet valid"):
		return "; if its certificate is right, this machine's clock is not"
	case strings.Contains(s, "x509:"):
		return "; put its CA below /etc/containers/certs.d/" + host + " or pass --tls-verify=false"
	}
	return ""
}

// hostOf is the registry of a docker:// reference.
func hostOf(ref types.ImageReference) string {
	if ref == nil || ref.Transport().Name() != docker.Transport.Name() || ref.DockerReference() == nil {
		return ""
	}
	return reference.Domain(ref.DockerReference())
}
