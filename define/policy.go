package define

import "fmt"

// PullPolicy says when a base image is fetched although the store may hold it.
type PullPolicy int

const (
	// PullMissing fetches an image only when the store has none of the name.
	PullMissing PullPolicy = iota
	// PullAlways fetches before every build.
	PullAlways
	// PullNewer fetches when the registry's digest differs from the store's;
	// an unreachable registry is not an error while the store has the image.
	PullNewer
	// PullNever uses the store only.
	PullNever
)

// ParsePullPolicy reads the spellings that buildah, podman and docker use.
func ParsePullPolicy(s string) (PullPolicy, error) {
	switch s {
	case "", "missing", "ifmissing", "notpresent":
		return PullMissing, nil
	case "always", "true":
		return PullAlways, nil
	case "newer", "ifnewer":
		return PullNewer, nil
	case "never", "false":
		return PullNever, nil
	}
	return PullMissing, fmt.Errorf("pull policy %q: want always, missing, newer or never: %w", s, ErrInvalid)
}

func (p PullPolicy) String() string {
	return [...]string{"missing", "always", "newer", "never"}[p]
}

// Format is the family of media types that an image is written in.
type Format string

const (
	// FormatOCI: OCI image specification 1.1.
	FormatOCI Format = "oci"
	// FormatDocker: Docker image manifest version 2, schema 2.
	FormatDocker Format = "docker"
)

// ParseFormat reads "oci" or "docker" ("" is oci).
func ParseFormat(s string) (Format, error) {
	switch s {
	case "", "oci":
		return FormatOCI, nil
	case "docker":
		return FormatDocker, nil
	}
	return "", fmt.Errorf("format %q: want oci or docker: %w", s, ErrInvalid)
}
