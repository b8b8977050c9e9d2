package seccomp

import (
	"fmt"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

// Default returns the profile that docker, and so most images' authors, know,
// resolved for this host's architecture, its kernel's version and the step's
// bounding capabilities ("CAP_NET_ADMIN", the prefix is optional).
// The result is the caller's to change.
func Default(caps []string) (*specs.LinuxSeccomp, error) {
	p, err := moby.GetDefaultProfile(documentOf(caps))
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return p, nil
}

// documentOf is what profiles are resolved for.
func documentOf(caps []string) *specs.Spec {
	bounding := make([]string, len(caps))
	for i, c := range caps {
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		bounding[i] = c
	}
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}}}
}

// Load reads a profile in docker's form (moby's seccomp.json), resolved as
// Default's is. One that has an unknown form is an error that wraps
// define.ErrInvalid.
func Load(profile []byte, caps []string) (*specs.LinuxSeccomp, error) {
	p, err := moby.LoadProfile(string(profile), documentOf(caps))
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w: %w", err, define.ErrInvalid)
	}
	return p, nil
}
