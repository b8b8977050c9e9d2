package imagebuildah

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/cdi"
	"github.com/stratabuild/strata/define"
)

// allowedDevices are the devices that --allow device gives leave for.
type allowedDevices struct {
	all bool
	// names are requests as RUN --device has them; alias are names that the
	// Containerfile uses for them.
	names []string
	alias map[string]string
}

// parseAllowDevice reads "device" and "device=NAME[,alias=OTHER]" into a;
// false is another entitlement.
func (a *allowedDevices) parse(entitlement string) (bool, error) {
	key, value, given := strings.Cut(entitlement, "=")
	if key != AllowDevice {
		return false, nil
	}
	if !given || value == "" {
		a.all = true
		return true, nil
	}
	name, rest, more := strings.Cut(value, ",")
	if name == "" {
		return true, fmt.Errorf("entitlement %q: want device=NAME: %w", entitlement, define.ErrInvalid)
	}
	if !more {
		a.names = append(a.names, name)
		return true, nil
	}
	other, ok := strings.CutPrefix(rest, "alias=")
	if !ok || other == "" || strings.Contains(other, ",") {
		return true, fmt.Errorf("entitlement %q: want device=NAME,alias=OTHER: %w", entitlement, define.ErrInvalid)
	}
	if a.alias == nil {
		a.alias = map[string]string{}
	}
	a.alias[other] = name
	return true, nil
}

// devices reads the specifications once in a run.
func (r *run) devices(dirs []string) (*cdi.Registry, error) {
	r.cdiOnce.Do(func() { r.cdi, r.cdiErr = cdi.Open(dirs) })
	return r.cdi, r.cdiErr
}

// runDevices finds the devices that a RUN asks for, by their full names, and
// which of those that it can do without are not here.
func (b *build) runDevices(cmd *instructions.RunCommand) (names, missing []string, err error) {
	list := instructions.GetDevices(cmd)
	if len(list) == 0 {
		return nil, nil, nil
	}
	var allowed allowedDevices
	for _, e := range b.opts.Allow {
		if _, err := allowed.parse(e); err != nil {
			return nil, nil, err
		}
	}
	registry, err := b.devices(b.opts.Run.CDIDirs)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range list {
		request := d.Name
		if request == "" {
			return nil, nil, fmt.Errorf("--device: the name is missing; want vendor.com/class=name: %w", define.ErrInvalid)
		}
		other, leave := allowed.alias[request]
		if leave {
			request = other
		}
		found := registry.Find(request)
		if len(found) == 0 {
			if d.Required {
				return nil, nil, fmt.Errorf("--device=%s: %w", d.Name, registry.Missing(request))
			}
			missing = append(missing, d.Name)
		}
		for _, name := range found {
			if !leave && !allowed.allows(registry, name) {
				return nil, nil, fmt.Errorf("--device=%s would give the step the device %s; allow it with --allow device or --allow device=%s: %w", d.Name, name, name, define.ErrUnsupported)
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	// What cannot be given is said before a step runs.
	_, err = registry.Edits(names)
	return names, missing, err
}

func (a *allowedDevices) allows(r *cdi.Registry, name string) bool {
	if a.all {
		return true
	}
	for _, request := range a.names {
		if slices.Contains(r.Find(request), name) {
			return true
		}
	}
	d, err := r.Get(name)
	return err == nil && d.AutoAllow
}

// planDevices gives the step the devices that it asks for.
func (s *stage) planDevices(p *runPlan, cmd *instructions.RunCommand) error {
	names, missing, err := s.b.runDevices(cmd)
	if err != nil {
		return err
	}
	for _, name := range missing {
		s.emit(define.Event{Kind: define.EventWarning, Text: fmt.Sprintf("RUN --device=%s: there is no such device here: the step runs without", name)})
	}
	p.confinement.CDI = slices.Concat(p.confinement.CDI, names)
	return nil
}

// deviceParts adds the devices of specifications, with all that a step sees of
// them.
func (b *build) deviceParts(k *cache.Key, r *RunOptions) error {
	if len(r.CDI) == 0 {
		return nil
	}
	registry, err := b.devices(r.CDIDirs)
	if err != nil {
		return err
	}
	edits, err := registry.Edits(r.CDI)
	if err != nil {
		return err
	}
	addList(k, "--device", r.CDI)
	k.Add("--device edits", edits.Text())
	return nil
}
