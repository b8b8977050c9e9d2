package isolation

import (
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

// devices translates o's devices to bind mounts. The host's inode is out of
// the step's reach behind a read-only mount, which says nothing about writing
// to a device.
func devices(list []Device) ([]specs.Mount, error) {
	var mounts []specs.Mount
	for _, d := range list {
		if d.Target == "" {
			d.Target = d.Source
		}
		if !path.IsAbs(d.Source) || !path.IsAbs(d.Target) || strings.ContainsRune(d.Source+d.Target, 0) {
			return nil, fmt.Errorf("device %q: want absolute paths: %w", d.Source, define.ErrInvalid)
		}
		switch strings.Trim(d.Permissions, "rwm") {
		case "":
		default:
			return nil, fmt.Errorf("device %s: permissions %q: want rwm: %w", d.Source, d.Permissions, define.ErrInvalid)
		}
		if p := d.Permissions; p != "" && (!strings.Contains(p, "r") || !strings.Contains(p, "w")) {
			return nil, fmt.Errorf("device %s: permissions %q: only rw and rwm can be given, there is no device control group: %w",
				d.Source, p, define.ErrUnsupported)
		}
		info, err := os.Stat(d.Source)
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", d.Source, err)
		}
		if !info.IsDir() && info.Mode()&os.ModeDevice == 0 {
			return nil, fmt.Errorf("device %s: is neither a device nor a directory; use a volume: %w", d.Source, define.ErrInvalid)
		}
		target, err := volumeTarget(d.Target)
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", d.Source, err)
		}
		mounts = append(mounts, specs.Mount{Destination: target, Type: "bind", Source: d.Source,
			Options: []string{"rbind", "rprivate", "nosuid", "noexec", "ro", "rro"}})
	}
	return mounts, nil
}
