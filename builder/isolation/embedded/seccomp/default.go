package seccomp

import (
	"fmt"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Default returns the profile that docker, and so most images' authors, know,
// resolved for this host's architecture, its kernel's version and the step's
// bounding capabilities ("CAP_NET_ADMIN", the prefix is optional).
// The result is the caller's to change.
func Default(caps []string) (*specs.LinuxSeccomp, error) {
	bounding := make([]string, len(caps))
	for i, c := range caps {
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		bounding[i] = c
	}
	p, err := moby.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}},
	})
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return p, nil
}
