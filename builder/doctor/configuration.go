package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/configfile"
	"go.podman.io/storage/pkg/homedir"
	"go.podman.io/storage/pkg/unshare"
	"golang.org/x/sys/unix"
)

// configuration says which files are read, in the order in which they are.
func (x *examiner) configuration(context.Context) {
	uid := unshare.GetRootlessUID()
	x.files("storage.conf", &configfile.File{Name: "storage", Extension: "conf", EnvironmentName: "CONTAINERS_STORAGE_CONF", UserId: uid},
		"none: the defaults are used")
	x.files("registries.conf", &configfile.File{Name: "registries", Extension: "conf", EnvironmentName: "CONTAINERS_REGISTRIES_CONF", UserId: uid},
		"none: short names are looked up on docker.io")
	x.files("registries.d", &configfile.File{Name: "registries", Extension: "yaml", UserId: uid,
		DoNotLoadMainFiles: true, DoNotUseExtensionForConfigName: true}, "none")
	x.files("policy.json", &configfile.File{Name: "policy", Extension: "json", EnvironmentName: "CONTAINERS_POLICY_JSON",
		DoNotLoadDropInFiles: true}, "none: images are accepted without signatures")
	x.files("containers.conf", &configfile.File{Name: "containers", Extension: "conf", EnvironmentName: "CONTAINERS_CONF", UserId: uid},
		"none")
	if f := &x.report.Host[len(x.report.Host)-1]; f.State == Neutral && f.Data["files"] != nil && len(f.Data["files"].([]string)) > 0 {
		f.Text += " (podman's and buildah's; strata does not read it)"
	}
	registries, origin, err := sysregistriesv2.UnqualifiedSearchRegistriesWithOrigin(&types.SystemContext{})
	switch {
	case err != nil:
		x.add("configuration.search", "short names", Lesser, firstLine(err.Error()), "correct the file")
	case len(registries) > 0:
		x.fact("configuration.search", "short names", "%s (%s)", strings.Join(registries, ", "), origin).with("registries", registries)
	}
}

// files lists the files of one kind that exist and can be read.
func (x *examiner) files(name string, f *configfile.File, none string) {
	id := "configuration." + strings.ReplaceAll(name, ".", "_")
	found := []string{}
	for item, err := range configfile.Read(f) {
		if err != nil {
			x.add(id, name, Lesser, firstLine(err.Error()), "make the file readable, or unset the variable that names it").with("files", found)
			return
		}
		found = append(found, item.Name)
	}
	text := strings.Join(found, ", ")
	if text == "" {
		text = none
	}
	x.fact(id, name, "%s", text).with("files", found)
}

// maxAuth bounds a file with credentials.
const maxAuth = 1 << 20

// credentials names the registries that there are credentials for, never what
// those are, and asks no helper for any.
func (x *examiner) credentials(context.Context) {
	total := 0
	for i, file := range authFiles() {
		names, helpers, err := readAuth(file)
		id := fmt.Sprintf("credentials.%d", i+1)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			x.add(id, "file", Lesser, fmt.Sprintf("%s: %v", file, err), "make it readable, or correct it").with("file", file)
			continue
		}
		total++
		text := file + ": "
		if len(names) == 0 {
			text += "no registry"
		} else {
			text += strings.Join(names, ", ")
		}
		if len(helpers) > 0 {
			text += "; helpers: " + strings.Join(helpers, ", ")
		}
		x.fact(id, "file", "%s", text).with("file", file).with("registries", names).with("helpers", helpers)
	}
	if total == 0 {
		x.fact("credentials.none", "file", "none: registries are used without a login (strata login REGISTRY makes one)")
	}
}

// authFiles are the files of containers-auth.json(5), in the order in which
// they are looked at.
func authFiles() []string {
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		return []string{f}
	}
	docker := os.Getenv("DOCKER_CONFIG")
	if docker != "" {
		f := filepath.Join(docker, "config.json")
		if _, err := os.Stat(f); err == nil {
			return []string{f}
		}
	}
	var files []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	} else {
		files = append(files, fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
	}
	home := homedir.Get()
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	if docker == "" {
		docker = filepath.Join(home, ".docker")
	}
	return append(files, filepath.Join(config, "containers", "auth.json"), filepath.Join(docker, "config.json"), filepath.Join(home, ".dockercfg"))
}

// readAuth returns the names in a file with credentials, sorted.
func readAuth(file string) (registries, helpers []string, err error) {
	// A FIFO must not hold us up.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, nil, errors.Join(err, errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAuth))
	if err != nil {
		return nil, nil, err
	}
	var doc struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredHelpers map[string]string          `json:"credHelpers"`
		CredsStore  string                     `json:"credsStore"`
	}
	if filepath.Base(file) == ".dockercfg" {
		err = json.Unmarshal(b, &doc.Auths)
	} else {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		// The decoder's own text may quote the file.
		return nil, nil, errors.New("not valid JSON")
	}
	for name := range doc.Auths {
		registries = append(registries, nameOnly(name))
	}
	for name, helper := range doc.CredHelpers {
		registries = append(registries, nameOnly(name))
		helpers = append(helpers, "docker-credential-"+helper)
	}
	if doc.CredsStore != "" {
		helpers = append(helpers, "docker-credential-"+doc.CredsStore)
	}
	slices.Sort(registries)
	slices.Sort(helpers)
	return slices.Compact(registries), slices.Compact(helpers), nil
}

// nameOnly takes what somebody may have written before the host.
func nameOnly(registry string) string { return registry[strings.LastIndexByte(registry, '@')+1:] }
