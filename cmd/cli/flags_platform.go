package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
)

// platformFlags are --platform and, for buildah's sake, its parts.
type platformFlags struct {
	platforms         []string
	os, arch, variant string
}

func (p *platformFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVar(&p.platforms, "platform", nil, "the `os/arch[/variant]` that the image is for (default: this machine's)")
	fs.StringVar(&p.os, "os", "", "the `os` part of the platform")
	fs.StringVar(&p.arch, "arch", "", "the `architecture` part of the platform")
	fs.StringVar(&p.variant, "variant", "", "the `variant` part of the platform")
	_ = cmd.RegisterFlagCompletionFunc("platform", fixedValues("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386",
		"linux/ppc64le", "linux/riscv64", "linux/s390x"))
}

// options returns the platform, or none when the host's is meant.
func (p *platformFlags) options() ([]define.Platform, error) {
	if len(p.platforms) == 0 && p.os+p.arch+p.variant == "" {
		return nil, nil
	}
	if len(p.platforms) > 0 {
		if p.os+p.arch+p.variant != "" {
			return nil, fmt.Errorf("--platform and --os, --arch or --variant: want one or the other: %w", define.ErrInvalid)
		}
		if len(p.platforms) > 1 {
			return nil, fmt.Errorf("--platform %s: several platforms at once are not in this version of strata: %w",
				strings.Join(p.platforms, ","), define.ErrUnsupported)
		}
		one, err := define.ParsePlatform(p.platforms[0])
		if err != nil {
			return nil, fmt.Errorf("--platform: %w", err)
		}
		return []define.Platform{one}, nil
	}
	host := define.HostPlatform()
	parts := []string{or(p.os, host.OS), or(p.arch, host.Architecture)}
	if p.variant != "" {
		parts = append(parts, p.variant)
	} else if p.arch == "" && host.Variant != "" {
		parts = append(parts, host.Variant)
	}
	one, err := define.ParsePlatform(strings.Join(parts, "/"))
	if err != nil {
		return nil, fmt.Errorf("--os, --arch, --variant: %w", err)
	}
	return []define.Platform{one}, nil
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
