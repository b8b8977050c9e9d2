package transport

import (
	"fmt"
	"strings"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// defaultRegistry completes short names where no registries.conf says which
// registries to search.
const defaultRegistry = "docker.io"

// candidates lists the full names that a name may mean, in the order to try:
// the alias of registries.conf alone where there is one, else its search
// registries. It is what containers/image's shortnames does without asking
// the user, whose terminal belongs to the progress display.
func (c *Client) candidates(sys *types.SystemContext, name string) ([]reference.Named, error) {
	if !isShort(name) {
		named, err := parseNamed(name, "")
		if err != nil {
			return nil, err
		}
		return []reference.Named{reference.TagNameOnly(named)}, nil
	}
	// The registry is a stand-in: it is only checked that this is a name.
	named, err := parseNamed(name, "localhost")
	if err != nil {
		return nil, err
	}
	repo := strings.TrimPrefix(reference.TrimNamed(named).String(), "localhost/")
	suffix := strings.TrimPrefix(named.String(), reference.TrimNamed(named).String())

	alias, err := resolveAlias(sys, repo)
	if err != nil {
		return nil, fmt.Errorf("reading registries.conf for %s: %w", show(name), plain(err))
	}
	if alias != nil {
		full, err := reference.ParseNormalizedNamed(alias.String() + suffix)
		if err != nil {
			return nil, fmt.Errorf("alias of %s in registries.conf: %w", show(name), plain(err))
		}
		return []reference.Named{reference.TagNameOnly(full)}, nil
	}
	registries, err := c.searchRegistries(sys, name)
	if err != nil {
		return nil, err
	}
	var out []reference.Named
	for _, r := range registries {
		full, err := parseNamed(r+"/"+name, "")
		if err != nil {
			return nil, err
		}
		out = append(out, reference.TagNameOnly(full))
	}
	return out, nil
}

// searchRegistries returns registries.conf's list, or the default where no
// file has one. An empty list in a file is somebody's decision and kept.
func (c *Client) searchRegistries(sys *types.SystemContext, name string) ([]string, error) {
	registries, origin, err := sysregistriesv2.UnqualifiedSearchRegistriesWithOrigin(sys)
	if err != nil {
		return nil, fmt.Errorf("reading registries.conf for %s: %w", show(name), plain(err))
	}
	if len(registries) == 0 {
		if origin != "" {
			return nil, fmt.Errorf("image name %s has no registry, and %s allows no search: write the full name, such as %s/library/NAME: %w",
				show(name), origin, defaultRegistry, define.ErrNotFound)
		}
		return []string{defaultRegistry}, nil
	}
	return registries, nil
}

// oneCandidate refuses to guess where registries.conf forbids guessing.
func oneCandidate(sys *types.SystemContext, name string, all []reference.Named) error {
	if len(all) < 2 {
		return nil
	}
	mode, err := sysregistriesv2.GetShortNameMode(sys)
	if err != nil {
		return fmt.Errorf("reading registries.conf for %s: %w", show(name), plain(err))
	}
	if mode == types.ShortNameModeEnforcing {
		return fmt.Errorf("image name %s may be %s or %s, and registries.conf (short-name-mode) forbids to guess: write the full name: %w",
			show(name), all[0], all[1], define.ErrInvalid)
	}
	return nil
}

// resolveAlias looks in the aliases learnt by other tools and those of
// registries.conf. The former need a lock file, which cannot be made where
// the cache directory is read-only; they are left out then.
func resolveAlias(sys *types.SystemContext, repo string) (reference.Named, error) {
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(sys, repo)
	return alias, err
}
