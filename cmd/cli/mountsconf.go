package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// mountsFiles are where mounts.conf lies, the first that exists counts
// (containers-mounts.conf(5)).
func (a *app) mountsFiles() []string {
	files := []string{"/etc/containers/mounts.conf", "/usr/share/containers/mounts.conf"}
	if home := a.getenv("HOME"); os.Geteuid() != 0 && home != "" {
		files = append([]string{filepath.Join(home, ".config/containers/mounts.conf")}, files...)
	}
	return files
}

// defaultMounts adds what mounts.conf, or the file of --default-mounts-file,
// shows to every step: directories and files of the host, of which a step can
// change its own copy only.
func (a *app) defaultMounts(o *builder.Confinement) error {
	if name := a.global.mountsFile; name != "" {
		list, err := readMounts(name)
		if err != nil {
			return fmt.Errorf("--default-mounts-file: %w", err)
		}
		o.Volumes = append(o.Volumes, list...)
		return nil
	}
	for _, name := range a.mountsFiles() {
		list, err := readMounts(name)
		if errors.Is(err, fs.ErrNotExist) || hidden(name, err) {
			continue
		}
		if err != nil {
			return err
		}
		o.Volumes = append(o.Volumes, list...)
		return nil
	}
	return nil
}

// hidden reports a file that cannot even be looked up, as below a HOME that
// is another user's (su): for this user there is none. One that is there and
// cannot be read is an error: what an administrator chose would be left out.
func hidden(name string, err error) bool {
	if !errors.Is(err, fs.ErrPermission) {
		return false
	}
	_, err = os.Lstat(name)
	return errors.Is(err, fs.ErrPermission)
}

// readMounts reads lines SOURCE:TARGET. Sources that do not exist are left
// out: distributions name what only some hosts have.
func readMounts(name string) ([]isolation.Volume, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []isolation.Volume
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		source, target, ok := strings.Cut(line, ":")
		if !ok {
			target = source
		}
		if !path.IsAbs(source) || !path.IsAbs(target) || strings.Contains(target, ":") {
			return nil, fmt.Errorf("%s:%d: want /SOURCE:/TARGET: %w", name, n, define.ErrInvalid)
		}
		info, err := os.Stat(source)
		if err != nil {
			continue
		}
		v := isolation.Volume{Source: source, Target: target, Options: []string{builder.VolumeOverlay}}
		if !info.IsDir() {
			v.ReadOnly, v.Options = true, nil
		}
		list = append(list, v)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return slices.Clip(list), nil
}
