package cli

import (
	"fmt"
	"slices"
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
	p.addFor(cmd, "the `os/arch[/variant]` that the image is for (default: this machine's); several, between commas or repeated, give an image each")
}

func (p *platformFlags) addFor(cmd *cobra.Command, usage string) {
	fs := cmd.Flags()
	fs.StringSliceVar(&p.platforms, "platform", nil, usage)
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
		var all []define.Platform
		for _, word := range p.platforms {
			one, err := define.ParsePlatform(word)
			if err != nil {
				return nil, fmt.Errorf("--platform: %w", err)
			}
			if err := knownPlatform("platform", one); err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		return all, nil
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
	if err := knownPlatform("os or --arch", one); err != nil {
		return nil, err
	}
	return []define.Platform{one}, nil
}

// one returns the platform, zero when the host's is meant, for commands that
// have no use for several.
func (p *platformFlags) one() (define.Platform, error) {
	all, err := p.options()
	switch {
	case err != nil || len(all) == 0:
		return define.Platform{}, err
	case len(all) > 1:
		return define.Platform{}, fmt.Errorf("--platform %s: want one platform here: %w", strings.Join(p.platforms, ","), define.ErrInvalid)
	}
	return all[0], nil
}

// knownOS and knownArch are Go's names (go tool dist list), as the OCI image
// specification asks for; whatever else stands there is a slip.
var (
	knownOS   = []string{"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows"}
	knownArch = []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc", "ppc64", "ppc64le", "riscv64", "s390", "s390x", "sparc64", "wasm"}
	usual     = []string{"linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/loong64", "linux/mips64le", "linux/ppc64le", "linux/riscv64", "linux/s390x", "windows/amd64", "darwin/arm64"}
)

// knownPlatform refuses a platform that no image can be of, with the nearest
// that exist.
func knownPlatform(flag string, p define.Platform) error {
	badOS, badArch := !slices.Contains(knownOS, p.OS), !slices.Contains(knownArch, p.Architecture)
	if !badOS && !badArch {
		return nil
	}
	text := define.FormatPlatform(p)
	what, hint := "no architecture "+p.Architecture, ""
	switch {
	case badOS && badArch:
		what = "neither a system " + p.OS + " nor an architecture " + p.Architecture
		hint = didYouMean(text, usual, "")
	case badOS:
		what = "no system " + p.OS
		hint = didYouMean(p.OS, knownOS, "")
	default:
		hint = didYouMean(p.Architecture, knownArch, "")
	}
	if hint == "" {
		hint = "; want one such as linux/amd64, linux/arm64 or linux/arm/v7"
	}
	return fmt.Errorf("--%s %q: there is %s%s: %w", flag, text, what, hint, define.ErrInvalid)
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
