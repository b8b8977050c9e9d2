package builder

import (
	"slices"

	"github.com/stratabuild/strata/builder/cdi"
	"github.com/stratabuild/strata/builder/isolation"
)

// useCDI gives a step the devices that its confinement names. Variables of
// the specification win over all others.
func useCDI(f *Confinement, o *isolation.Options) error {
	if len(f.CDI) == 0 {
		return nil
	}
	registry, err := cdi.Open(f.CDIDirs)
	if err != nil {
		return err
	}
	edits, err := registry.Edits(f.CDI)
	if err != nil {
		return err
	}
	o.Devices = slices.Clone(o.Devices)
	for _, n := range edits.Nodes {
		o.Devices = append(o.Devices, isolation.Device{Source: n.HostPath, Target: n.Path, Permissions: n.Permissions})
	}
	for _, m := range edits.Mounts {
		o.Volumes = append(o.Volumes, isolation.Volume{Source: m.HostPath, Target: m.Path, Options: m.Options})
	}
	env := envList(o.Env)
	for _, kv := range edits.Env {
		env.set(kv)
	}
	o.Env = env
	o.Groups = slices.Clone(o.Groups)
	for _, gid := range edits.GIDs {
		if !slices.Contains(o.Groups, gid) {
			o.Groups = append(o.Groups, gid)
		}
	}
	return nil
}

// CheckCDI reports what is wrong with the devices of specifications that a
// confinement names.
func CheckCDI(f *Confinement) error { return useCDI(f, &isolation.Options{}) }
