package transport

import (
	"errors"
	"fmt"
	"io/fs"

	"go.podman.io/image/v5/signature"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/configfile"
)

// policy reads policy.json. Where there is none, everything is accepted, as
// docker does, and the user is told once; a file that cannot be read or
// understood is an error, because somebody meant to restrict something.
func (c *Client) policy(sys *types.SystemContext) (*signature.PolicyContext, error) {
	p, err := signature.DefaultPolicy(sys)
	switch {
	case err == nil:
	case sys.SignaturePolicyPath == "" && (errors.Is(err, configfile.ErrConfigFileNotFound) || errors.Is(err, fs.ErrNotExist)):
		c.note("no policy.json found: images are accepted without signatures (see containers-policy.json(5))")
		p = acceptAnything()
	default:
		return nil, fmt.Errorf("signature policy: %w", plain(err))
	}
	if p.Transports == nil {
		p.Transports = map[string]signature.PolicyTransportScopes{}
	}
	// The policy is about what comes in. What is in the store may leave it.
	p.Transports[imagestorage.Transport.Name()] = signature.PolicyTransportScopes{
		"": signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	}
	ctx, err := signature.NewPolicyContext(p)
	if err != nil {
		return nil, fmt.Errorf("signature policy: %w", plain(err))
	}
	return ctx, nil
}

func acceptAnything() *signature.Policy {
	return &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
}
