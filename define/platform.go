package define

import (
	"fmt"
	"runtime"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is what an image runs on, in the OCI image specification's terms.
type Platform = v1.Platform

// HostPlatform returns the platform of the running machine in normal form.
func HostPlatform() Platform {
	return NormalizePlatform(Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

var archAliases = map[string]Platform{
	"x86_64": {Architecture: "amd64"}, "x86-64": {Architecture: "amd64"},
	"aarch64": {Architecture: "arm64"}, "armhf": {Architecture: "arm", Variant: "v7"},
	"armel": {Architecture: "arm", Variant: "v6"}, "i386": {Architecture: "386"},
	"i486": {Architecture: "386"}, "i586": {Architecture: "386"}, "i686": {Architecture: "386"},
}

// NormalizePlatform rewrites aliases ("x86_64", "aarch64", "armhf") to Go's
// names and fills or drops the variants that have one meaning only: arm
// without a variant is v7, arm64/v8 and amd64/v1 have none.
func NormalizePlatform(p Platform) Platform {
	p.OS = strings.ToLower(p.OS)
	p.Architecture = strings.ToLower(p.Architecture)
	p.Variant = strings.ToLower(p.Variant)
	if a, ok := archAliases[p.Architecture]; ok {
		p.Architecture = a.Architecture
		if p.Variant == "" {
			p.Variant = a.Variant
		}
	}
	switch p.Architecture {
	case "arm":
		switch p.Variant {
		case "":
			p.Variant = "v7"
		case "5", "6", "7", "8":
			p.Variant = "v" + p.Variant
		}
	case "arm64":
		if p.Variant == "8" || p.Variant == "v8" || p.Variant == "v8.0" {
			p.Variant = ""
		}
	case "amd64":
		if p.Variant == "v1" {
			p.Variant = ""
		}
	}
	return p
}

// ParsePlatform reads the forms "os/arch[/variant]", "os", "arch" and
// "local" (the host's). The result is normalised.
func ParsePlatform(s string) (Platform, error) {
	host := HostPlatform()
	if s == "local" {
		return host, nil
	}
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
			return Platform{}, fmt.Errorf("platform %q: want os/arch[/variant], such as linux/arm64: %w", s, ErrInvalid)
		}
	}
	switch len(parts) {
	case 1:
		switch strings.ToLower(s) {
		case "linux", "windows", "darwin", "freebsd", "wasip1":
			return NormalizePlatform(Platform{OS: s, Architecture: host.Architecture}), nil
		}
		return NormalizePlatform(Platform{OS: host.OS, Architecture: s}), nil
	case 2:
		return NormalizePlatform(Platform{OS: parts[0], Architecture: parts[1]}), nil
	case 3:
		return NormalizePlatform(Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}), nil
	}
	return Platform{}, fmt.Errorf("platform %q: want os/arch[/variant], such as linux/arm64: %w", s, ErrInvalid)
}

// FormatPlatform writes p as os/arch[/variant].
func FormatPlatform(p Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
