package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
)

// LoginOptions are login's flags.
type LoginOptions struct {
	// Registry is a host, with a port where it is not the usual one, and
	// optionally a namespace there.
	Registry, Username, Password string
	// GetLogin writes the user who is logged in to Out, and does nothing else.
	GetLogin bool
	Out      io.Writer
	// Stored, when not nil, is told where credentials were stored: a file or
	// a helper.
	Stored func(where string)
}

// Login verifies credentials with the registry and stores them, in the
// credential helper that registries.conf names or in the auth file, which is
// made when it does not exist. Without a username it verifies the stored
// ones. Nobody logged in is define.ErrNotFound. No error has the password in
// its text.
func (c *Client) Login(ctx context.Context, l LoginOptions) error {
	key, host, err := registryKey(l.Registry)
	if err != nil {
		return err
	}
	sys, err := c.loginSystem()
	if err != nil {
		return err
	}
	if l.GetLogin || l.Username == "" {
		stored, err := c.credentials(ctx, sys, key)
		if err != nil {
			return err
		}
		if stored.Username == "" {
			return fmt.Errorf("credentials of %s: %w: nobody is logged in", key, define.ErrNotFound)
		}
		if l.GetLogin {
			if l.Out == nil {
				return nil
			}
			_, err := fmt.Fprintln(l.Out, oneLine(stored.Username))
			return err
		}
		l.Username, l.Password = stored.Username, stored.Password
		return c.checkAuth(ctx, sys, host, l)
	}
	if err := c.checkAuth(ctx, sys, host, l); err != nil {
		return err
	}
	where, err := c.setCredentials(ctx, sys, key, l.Username, l.Password)
	if err != nil {
		return fmt.Errorf("login to %s: %w", key, err)
	}
	if l.Stored != nil {
		l.Stored(where)
	}
	return nil
}

func (c *Client) checkAuth(ctx context.Context, sys *types.SystemContext, host string, l LoginOptions) error {
	err := c.retry(ctx, "login to "+host, func() error {
		return docker.CheckAuth(ctx, sys, l.Username, l.Password, host)
	})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("login to %s: %w", host, context.Cause(ctx))
	}
	var unauthorized docker.ErrUnauthorizedForCredentials
	if errors.As(err, &unauthorized) {
		return fmt.Errorf("login to %s as %s: the registry refuses this user name and password: %w", host, oneLine(l.Username), define.ErrInvalid)
	}
	return fmt.Errorf("login to %s: %w%s", host, plain(err, l.Password), tlsRemedy(err, host))
}

// Logout forgets credentials of one registry, or of all. Nobody logged in is
// define.ErrNotFound.
func (c *Client) Logout(ctx context.Context, registry string, all bool) error {
	sys, err := c.loginSystem()
	if err != nil {
		return err
	}
	if all {
		if err := c.removeAllCredentials(ctx, sys); err != nil {
			return fmt.Errorf("logout: %w", err)
		}
		return nil
	}
	key, _, err := registryKey(registry)
	if err != nil {
		return err
	}
	switch err := c.removeCredentials(ctx, sys, key); {
	case errors.Is(err, config.ErrNotLoggedIn):
		return fmt.Errorf("credentials of %s: %w: nobody is logged in", key, define.ErrNotFound)
	case err != nil:
		return fmt.Errorf("logout of %s: %w", key, err)
	}
	return nil
}

// loginSystem is system without the checks and credentials of a transfer: the
// auth file may be absent here.
func (c *Client) loginSystem() (*types.SystemContext, error) {
	alone := &Client{o: Options{CertDir: c.o.CertDir, TLSVerify: c.o.TLSVerify}}
	sys, err := alone.system(define.Platform{})
	if err != nil {
		return nil, err
	}
	switch {
	case c.o.CompatAuthfile != "":
		sys.AuthFilePath, sys.DockerCompatAuthFilePath = "", c.o.CompatAuthfile
	case c.o.Authfile != "":
		sys.AuthFilePath, sys.DockerCompatAuthFilePath = c.o.Authfile, ""
	}
	return sys, nil
}

// registryKey takes off what users paste in front of a registry's name.
func registryKey(registry string) (key, host string, err error) {
	key = registry
	for _, scheme := range []string{"https://", "http://", "docker://"} {
		key = strings.TrimPrefix(key, scheme)
	}
	key = strings.TrimRight(key, "/")
	host, _, _ = strings.Cut(key, "/")
	if host == "" || strings.ContainsAny(key, " \t\n\r@?#") {
		return "", "", fmt.Errorf("registry %s: want HOST[:PORT][/NAMESPACE]: %w", show(registry), define.ErrInvalid)
	}
	return key, host, nil
}
