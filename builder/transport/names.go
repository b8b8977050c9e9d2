package transport

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker/reference"
)

// The transports, as names write them.
const (
	kindDocker        = "docker"
	kindOCI           = "oci"
	kindOCIArchive    = "oci-archive"
	kindDockerArchive = "docker-archive"
	kindDir           = "dir"
	kindStorage       = "containers-storage"
)

var kinds = []string{kindDocker, kindOCI, kindOCIArchive, kindDockerArchive, kindDir, kindStorage}

// foreign are transports of containers/image that this package leaves out;
// they are known in order to be refused by name.
var foreign = []string{"docker-daemon", "ostree", "sif", "atomic", "tarball"}

// splitKind takes a transport off a name; kind is "" when there is none.
// "docker:" counts with "//" only: "docker:latest" is an image.
func splitKind(name string) (kind, rest string) {
	before, after, ok := strings.Cut(name, ":")
	if !ok || !(slices.Contains(kinds, before) || slices.Contains(foreign, before)) {
		return "", name
	}
	if before == kindDocker {
		after, ok = strings.CutPrefix(after, "//")
		if !ok {
			return "", name
		}
	}
	return before, after
}

// IsTransport reports whether a name starts with a transport that Push knows.
func IsTransport(name string) bool {
	kind, _ := splitKind(name)
	return slices.Contains(kinds, kind)
}

// NormalizeTag turns -t's value into a full name: localhost/ is put before a
// name without a registry, :latest after one without a tag. A name with a
// digest, and one that is not a name at all, is define.ErrInvalid.
func NormalizeTag(name string) (string, error) {
	if strings.Contains(name, "@") {
		return "", fmt.Errorf("tag %s has a digest, which only reading can use: write NAME:TAG: %w", show(name), define.ErrInvalid)
	}
	named, err := parseNamed(name, "localhost")
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(named).String(), nil
}

// parseNamed reads an image name; one without a registry gets the one given.
func parseNamed(name, registry string) (reference.Named, error) {
	full := name
	if isShort(name) {
		if isID(name) && len(name) == 64 {
			return nil, fmt.Errorf("image name %s looks like an image ID: choose another name: %w", show(name), define.ErrInvalid)
		}
		full = registry + "/" + name
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return nil, fmt.Errorf("image name %s: %s: %w", show(name), explain(name, err), define.ErrInvalid)
	}
	return named, nil
}

// isShort reports whether a name has no registry: its first component has
// neither dot nor port and is not localhost.
func isShort(name string) bool {
	first, _, ok := strings.Cut(name, "/")
	return !ok || !(strings.ContainsAny(first, ".:") || first == "localhost")
}

// isID reports whether a name may be an image ID or the start of one.
func isID(name string) bool {
	return len(name) >= 3 && len(name) <= 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// explain says what is wrong with a name; the parser only says that something
// is.
func explain(name string, err error) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > 512:
		return fmt.Sprintf("it has %d characters, and 255 are allowed", len(name))
	case strings.Contains(name, "://"):
		kind, _, _ := strings.Cut(name, "://")
		return fmt.Sprintf("there is no transport %s; want one of %s, or none", oneLine(kind), strings.Join(kinds, ", "))
	case strings.Contains(name, "//") || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/"):
		return "it has an empty part between its slashes"
	}
	if i := strings.IndexFunc(name, func(r rune) bool {
		return r > unicode.MaxASCII || !(unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-/:@+", r))
	}); i >= 0 {
		r := []rune(name[i:])[0]
		return fmt.Sprintf("%q is not allowed: use lower-case letters, digits and . _ - between slashes", r)
	}
	if path := pathOf(name); strings.ToLower(path) != path {
		return fmt.Sprintf("upper-case letters are allowed in the tag only: write %s", strings.Replace(name, path, strings.ToLower(path), 1))
	}
	if _, tag, ok := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":"); ok && tag == "" {
		return "the tag after the colon is empty"
	}
	return oneLine(err.Error())
}

// pathOf is a name without registry, tag and digest.
func pathOf(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if !isShort(name) {
		_, name, _ = strings.Cut(name, "/")
	}
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name = name[:i]
	}
	return name
}
