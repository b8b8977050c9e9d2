package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/ioutils"
)

// keeper is where login and logout change credentials: a helper, or the auth
// file that is written to.
type keeper struct {
	helper
	sys *types.SystemContext // with "" as the helper's name: of the auth file alone
}

// authKey is what an auth file calls a registry or a namespace of one.
func authKey(sys *types.SystemContext, key string) string {
	if sys.DockerCompatAuthFilePath != "" && key == "docker.io" {
		return "https://index.docker.io/v1/" // docker's own name for it
	}
	return key
}

// written is the auth file that login and logout change. One that is not there
// names no helper, and neither does one that cannot be read: containers/image
// complains about that when it changes it.
func written(sys *types.SystemContext) authFile {
	paths, _ := authPaths(sys)
	return readAuthFile(paths[0])
}

// keepers are where the credentials of a key are stored, in the order in which
// containers/image tries them (sysregistriesv2.CredentialHelpers).
func keepers(sys *types.SystemContext, key string) ([]keeper, error) {
	names := []string{sysregistriesv2.AuthenticationFileHelper}
	if sys.DockerCompatAuthFilePath == "" { // docker knows nothing of registries.conf
		var err error
		if names, err = sysregistriesv2.CredentialHelpers(sys); err != nil {
			return nil, plain(err)
		}
	}
	alone := *sys
	alone.SystemRegistriesConfPath, alone.SystemRegistriesConfDirPath = os.DevNull, noDropIns
	var all []keeper
	for _, name := range names {
		k := keeper{helper: helper{name, "registries.conf"}}
		if name == sysregistriesv2.AuthenticationFileHelper {
			file := written(sys)
			k = keeper{helper{file.helpers[authKey(sys, key)], file.path}, &alone}
		}
		all = append(all, k)
	}
	return all, nil
}

// setCredentials is config.SetCredentials with helpers that are bounded.
func (c *Client) setCredentials(ctx context.Context, sys *types.SystemContext, key, username, password string) (where string, err error) {
	all, err := keepers(sys, key)
	if err != nil {
		return "", err
	}
	var failed error
	for _, k := range all {
		if k.name == "" {
			where, err = config.SetCredentials(k.sys, key, username, password)
			if err != nil {
				err = plain(err, password)
			}
		} else {
			where, err = "credential helper: "+oneLine(k.name), c.tellHelper(ctx, k.helper, "store", authKey(sys, key), username, password)
		}
		if err == nil || c.ended(ctx, err) {
			return where, err
		}
		if failed == nil {
			failed = err
		}
	}
	return "", failed
}

// removeCredentials is config.RemoveAuthentication with helpers that are
// bounded; config.ErrNotLoggedIn is its error, too.
func (c *Client) removeCredentials(ctx context.Context, sys *types.SystemContext, key string) error {
	all, err := keepers(sys, key)
	if err != nil {
		return err
	}
	var failed error
	removed := false
	for _, k := range all {
		switch {
		case k.name == "":
			err = config.RemoveAuthentication(k.sys, key)
		case strings.Contains(key, "/"):
			continue // helpers keep those of hosts
		default:
			err = c.tellHelper(ctx, k.helper, "erase", authKey(sys, key), "", "")
			if k.sys != nil && (err == nil || errors.Is(err, config.ErrNotLoggedIn)) {
				// An entry of the file's own is behind that of the helper.
				changed, e := editAuths(k.by, func(doc *authDocument) { delete(doc.auths, authKey(sys, key)) })
				if e != nil || changed {
					err = e
				}
			}
		}
		switch {
		case err == nil:
			removed = true
		case c.ended(ctx, err):
			return err
		case !errors.Is(err, config.ErrNotLoggedIn) && failed == nil:
			failed = plain(err)
		}
	}
	if failed == nil && !removed {
		return config.ErrNotLoggedIn
	}
	return failed
}

// removeAllCredentials is config.RemoveAllAuthentication with helpers that are
// bounded.
func (c *Client) removeAllCredentials(ctx context.Context, sys *types.SystemContext) error {
	all, err := keepers(sys, "")
	if err != nil {
		return err
	}
	var failed error
	for _, k := range all {
		if k.sys != nil {
			err = c.emptyFile(ctx, sys)
		} else {
			err = c.emptyHelper(ctx, k.helper)
		}
		if c.ended(ctx, err) {
			return err
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// emptyFile removes what the auth file holds, and what the helpers hold that it
// names.
func (c *Client) emptyFile(ctx context.Context, sys *types.SystemContext) error {
	file := written(sys)
	for _, host := range slices.Sorted(maps.Keys(file.helpers)) {
		err := c.tellHelper(ctx, helper{file.helpers[host], file.path}, "erase", host, "", "")
		if err != nil && !errors.Is(err, config.ErrNotLoggedIn) {
			return err
		}
	}
	_, err := editAuths(file.path, func(doc *authDocument) {
		clear(doc.auths)
		if sys.DockerCompatAuthFilePath == "" {
			clear(doc.helpers) // docker keeps them
		}
	})
	return err
}

// emptyHelper removes all that a helper holds; one that is not installed holds
// nothing.
func (c *Client) emptyHelper(ctx context.Context, h helper) error {
	out, err := c.run(ctx, h, "list", "listing its credentials", "")
	if errors.Is(err, define.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var names map[string]string
	if json.Unmarshal(out, &names) != nil {
		return fmt.Errorf("credential helper %s: its list is not the JSON of such a helper: %w", h.program(), define.ErrInvalid)
	}
	for _, host := range slices.Sorted(maps.Keys(names)) {
		if err := c.tellHelper(ctx, h, "erase", host, "", ""); err != nil && !errors.Is(err, config.ErrNotLoggedIn) {
			return err
		}
	}
	return nil
}

// tellHelper has a helper store or erase the credentials of a host. Where there
// are none to erase, the error is config.ErrNotLoggedIn.
func (c *Client) tellHelper(ctx context.Context, h helper, action, host, username, password string) error {
	if strings.Contains(host, "/") && !strings.Contains(host, "://") {
		return fmt.Errorf("credential helper %s keeps credentials of registries, not of %s: name the registry alone, or take it out of %s: %w", h.program(), host, h.by, define.ErrUnsupported)
	}
	input, doing := host, "erasing the credentials of "+host
	if action == "store" {
		b, err := json.Marshal(struct{ ServerURL, Username, Secret string }{host, username, password})
		if err != nil {
			return err
		}
		input, doing = string(b)+"\n", "storing the credentials of "+host
	}
	_, err := c.run(ctx, h, action, doing, input, password)
	if errors.Is(err, errNotInKeychain) {
		return config.ErrNotLoggedIn
	}
	return err
}

// ended reports an error after which nobody else is asked.
func (c *Client) ended(ctx context.Context, err error) bool {
	var silent *silentHelper
	return ctx.Err() != nil || errors.As(err, &silent)
}

// authDocument is what login and logout change of an auth file.
type authDocument struct{ auths, helpers map[string]json.RawMessage }

// editAuths changes an auth file, in one step, and says whether there was
// something to change; what else the file holds stays. One that is not there
// stays so.
func editAuths(path string, change func(*authDocument)) (changed bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	raw := map[string]json.RawMessage{}
	doc := authDocument{map[string]json.RawMessage{}, map[string]json.RawMessage{}}
	parts := map[string]*map[string]json.RawMessage{"auths": &doc.auths, "credHelpers": &doc.helpers}
	if err := json.Unmarshal(b, &raw); err != nil {
		return false, fmt.Errorf("auth file %s: %w: %w", path, err, define.ErrInvalid)
	}
	for name, part := range parts {
		if raw[name] == nil {
			continue
		}
		if err := json.Unmarshal(raw[name], part); err != nil {
			return false, fmt.Errorf("auth file %s: %s: %w: %w", path, name, err, define.ErrInvalid)
		}
	}
	before := len(doc.auths) + len(doc.helpers)
	change(&doc)
	if len(doc.auths)+len(doc.helpers) == before {
		return false, nil
	}
	for name, part := range parts {
		if raw[name] == nil {
			continue
		}
		if raw[name], err = json.Marshal(*part); err != nil {
			return false, err
		}
	}
	if b, err = json.MarshalIndent(raw, "", "\t"); err != nil {
		return false, err
	}
	return true, ioutils.AtomicWriteFile(path, b, 0o600)
}
