package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// defaultRegistry completes short names where no registries.conf says which
// registries to search.
const defaultRegistry = "docker.io"

// meaning is what a name may mean: full names in the order to try, and how a
// short name came to them ("" for a full one).
type meaning struct {
	names []reference.Named
	why   string
}

// resolve says what a name means: the alias of registries.conf where there is
// one, else its search registries. It is what containers/image's shortnames
// does without asking the user, whose terminal belongs to the progress
// display.
func (c *Client) resolve(sys *types.SystemContext, name string) (meaning, error) {
	if !isShort(name) {
		named, err := parseNamed(name, "")
		if err != nil {
			return meaning{}, err
		}
		return meaning{names: []reference.Named{reference.TagNameOnly(named)}}, nil
	}
	// The registry is a stand-in: it is only checked that this is a name.
	named, err := parseNamed(name, "localhost")
	if err != nil {
		return meaning{}, err
	}
	repo := strings.TrimPrefix(reference.TrimNamed(named).String(), "localhost/")
	suffix := strings.TrimPrefix(named.String(), reference.TrimNamed(named).String())

	alias, err := c.resolveAlias(sys, repo)
	if err != nil {
		return meaning{}, fmt.Errorf("reading registries.conf for %s: %w", show(name), plain(err))
	}
	if alias != nil {
		full, err := reference.ParseNormalizedNamed(alias.String() + suffix)
		if err != nil {
			return meaning{}, fmt.Errorf("alias of %s in registries.conf: %w", show(name), plain(err))
		}
		return meaning{[]reference.Named{reference.TagNameOnly(full)}, "an alias"}, nil
	}
	registries, why, err := searchRegistries(sys, name)
	if err != nil {
		return meaning{}, err
	}
	m := meaning{why: why}
	for _, r := range registries {
		full, err := parseNamed(r+"/"+name, "")
		if err != nil {
			return meaning{}, err
		}
		m.names = append(m.names, reference.TagNameOnly(full))
	}
	return m, nil
}

// searchRegistries returns registries.conf's list, or the default where no
// file has one. An empty list in a file is somebody's decision and kept.
func searchRegistries(sys *types.SystemContext, name string) (registries []string, why string, err error) {
	registries, origin, err := sysregistriesv2.UnqualifiedSearchRegistriesWithOrigin(sys)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("reading registries.conf for %s: %w", show(name), plain(err))
	case len(registries) > 0:
		return registries, "search registries of " + origin, nil
	case origin != "":
		return nil, "", fmt.Errorf("image name %s has no registry, and %s allows no search: write the full name, such as %s/library/NAME: %w",
			show(name), origin, defaultRegistry, define.ErrNotFound)
	}
	return []string{defaultRegistry}, "no registries.conf lists search registries", nil
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
// registries.conf. The former have a lock file beside them, which cannot be
// made where the cache directory is read-only; an empty file of the store's
// stands in for them then.
func (c *Client) resolveAlias(sys *types.SystemContext, repo string) (reference.Named, error) {
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(sys, repo)
	if err == nil || sys.UserShortNameAliasConfPath != "" || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return alias, err
	}
	dir, dirErr := c.st.StateDir()
	if dirErr != nil {
		return nil, err
	}
	without := *sys
	without.UserShortNameAliasConfPath = filepath.Join(dir, "short-name-aliases.conf")
	alias, _, err = sysregistriesv2.ResolveShortNameAlias(&without, repo)
	return alias, err
}
