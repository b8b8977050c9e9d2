package transport

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
)

// RegistrySources restricts which registries are asked, by host[:port], as
// BUILD_REGISTRY_SOURCES does for buildah.
type RegistrySources struct {
	// Insecure may be spoken to by plain HTTP and without known certificates.
	Insecure []string `json:"insecureRegistries,omitempty"`
	// Blocked are never asked. If there is any in Allowed, no others are.
	Blocked []string `json:"blockedRegistries,omitempty"`
	Allowed []string `json:"allowedRegistries,omitempty"`
}

// ParseRegistrySources reads the JSON form. A key that is not known is an
// error, since it may restrict something.
func ParseRegistrySources(text string) (*RegistrySources, error) {
	var known map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &known); err != nil {
		return nil, fmt.Errorf("want a JSON object with insecureRegistries, blockedRegistries and allowedRegistries: %w", define.ErrInvalid)
	}
	for key := range known {
		if !slices.Contains([]string{"insecureRegistries", "blockedRegistries", "allowedRegistries"}, key) {
			return nil, fmt.Errorf("key %q: want insecureRegistries, blockedRegistries or allowedRegistries: %w", key, define.ErrInvalid)
		}
	}
	s := &RegistrySources{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("want lists of registries: %w", define.ErrInvalid)
	}
	return s, nil
}

// reach returns how a reference's registry is reached, with its credentials
// where a helper has them, or why it is not: Options.Sources decides. sys is
// not changed.
func (c *Client) reach(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (*types.SystemContext, error) {
	sys, err := c.allowed(sys, ref)
	if err != nil {
		return nil, err
	}
	return c.authorise(ctx, sys, ref)
}

func (c *Client) allowed(sys *types.SystemContext, ref types.ImageReference) (*types.SystemContext, error) {
	host, s := hostOf(ref), c.o.Sources
	switch {
	case s == nil || host == "":
		return sys, nil
	case slices.Contains(s.Blocked, host):
		return nil, fmt.Errorf("registry %s: BUILD_REGISTRY_SOURCES blocks it: %w", show(host), define.ErrInvalid)
	case len(s.Allowed) > 0 && !slices.Contains(s.Allowed, host):
		return nil, fmt.Errorf("registry %s: BUILD_REGISTRY_SOURCES allows others only: %w", show(host), define.ErrInvalid)
	case !slices.Contains(s.Insecure, host):
		return sys, nil
	}
	insecure := *sys
	insecure.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	insecure.DockerProxy = (&guard{insecure: true}).proxy
	return &insecure, nil
}
