package builder

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded"
	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/define"
)

// A step with a map of ids has a user namespace of its own. What it writes is
// stored with the ids that it sees, so that layers are the same as without:
// the working root, and what RUN --mount shows, are mounted anew for the step,
// with their owners shown through the map.

// idMaps are the namespaces of an engine's maps.
type idMaps struct {
	mu    sync.Mutex
	known map[string]*overlay.IDMap
	auto  map[string]*userns.Allocation
}

func (m *idMaps) close() {
	for _, k := range m.known {
		k.Namespace.Close()
	}
	for _, a := range m.auto {
		a.Close()
	}
}

// mountMap is the form of a map that mounts take; nil where owners are shown
// as they are.
func (e *Engine) mountMap(m isolation.IDMap) (*overlay.IDMap, error) {
	if m.Identity() {
		return nil, nil
	}
	key := fmt.Sprint(m)
	e.idMaps.mu.Lock()
	defer e.idMaps.mu.Unlock()
	if known := e.idMaps.known[key]; known != nil {
		return known, nil
	}
	ns, err := embedded.NewUserNamespace(m)
	if err != nil {
		return nil, fmt.Errorf("map of ids: %w", err)
	}
	uid, _ := m.UserOutside(0)
	gid, _ := m.GroupOutside(0)
	if e.idMaps.known == nil {
		e.idMaps.known = map[string]*overlay.IDMap{}
	}
	known := &overlay.IDMap{Namespace: ns, UID: int(uid), GID: int(gid)}
	e.idMaps.known[key] = known
	return known, nil
}

// MountMap is the map that trees of RUN --mount which are overlay mounts are
// to be mounted with for a step with this confinement; nil: none. A volume of
// such a tree is marked as Mapped.
func (e *Engine) MountMap(c *Confinement) (*overlay.IDMap, error) {
	o := isolation.Options{Namespaces: c.Namespaces, IDMap: c.IDMap, Rootless: e.opts.Rootless, SingleID: e.opts.SingleID}
	if err := e.chooseMap(&o); err != nil {
		return nil, err
	}
	return e.mountMap(o.IDMap)
}

// chooseMap makes of the mode of a user namespace a map, or no map.
func (e *Engine) chooseMap(o *isolation.Options) error {
	mode := string(o.Namespaces.User)
	if options, ok := strings.CutPrefix(mode, "auto"); ok && (options == "" || options[0] == ':') {
		if err := e.autoMap(o, strings.TrimPrefix(options, ":")); err != nil {
			return err
		}
		o.Namespaces.User = isolation.NamespacePrivate
	}
	if o.IDMap.IsZero() {
		if (mode == string(isolation.NamespacePrivate) || mode == "container") && !o.Rootless {
			own, err := isolation.OwnIDs()
			o.IDMap = own
			return err
		}
		return nil
	}
	if err := o.IDMap.Check(); err != nil {
		return err
	}
	if !o.Rootless {
		return nil
	}
	own, err := isolation.OwnIDs()
	switch {
	case err != nil:
		return err
	case !within(own.UID, o.IDMap.UID) || !within(own.GID, o.IDMap.GID):
		uids, gids := own.Strings()
		return fmt.Errorf("map of ids: ids outside are those of your user namespace (users %s; groups %s), and it has not all of these; add ranges to /etc/subuid and /etc/subgid: %w",
			strings.Join(uids, ","), strings.Join(gids, ","), define.ErrUnsupported)
	case !o.IDMap.Identity():
		return fmt.Errorf("map of ids: only root of the machine may show a store's files with other owners; run strata as root, "+
			"or map ids to themselves, such as 0:0:1000: %w", define.ErrUnsupported)
	case o.SingleID:
		o.IDMap = isolation.IDMap{} // the same id in the same namespace
	}
	return nil
}

// checkMapped refuses a map where the isolation has no user namespaces.
func checkMapped(driver string, m isolation.IDMap) error {
	if m.IsZero() || driver == "embedded" {
		return nil
	}
	return fmt.Errorf("user namespace of a step: %s isolation gives none; use --isolation embedded, or leave the map of ids out: %w", driver, define.ErrUnsupported)
}

// within reports whether own has every id outside of list.
func within(own, list []specs.LinuxIDMapping) bool {
	for _, m := range list {
		at, end := uint64(m.HostID), uint64(m.HostID)+uint64(m.Size)
		for at < end {
			next := at
			for _, o := range own {
				if at >= uint64(o.ContainerID) && at < uint64(o.ContainerID)+uint64(o.Size) {
					next = uint64(o.ContainerID) + uint64(o.Size)
				}
			}
			if next == at {
				return false
			}
			at = next
		}
	}
	return true
}

// autoMap takes ids that nobody else has, for as long as the engine is open.
func (e *Engine) autoMap(o *isolation.Options, options string) error {
	if !o.IDMap.IsZero() {
		return fmt.Errorf("user namespace auto, and a map of ids: want one or the other (auto:uidmapping= takes parts of one): %w", define.ErrInvalid)
	}
	want, err := ParseAuto(options)
	if err != nil {
		return err
	}
	if o.Rootless {
		return fmt.Errorf("user namespace auto: only root of the machine may show a store's files with other owners; "+
			"a user's steps have the user's namespace anyway: leave it out: %w", define.ErrUnsupported)
	}
	e.idMaps.mu.Lock()
	defer e.idMaps.mu.Unlock()
	a := e.idMaps.auto[options]
	if a == nil {
		used, err := e.usedIDs()
		if err != nil {
			return err
		}
		if a, err = userns.Allocate(e.store.Raw().RunRoot(), want.Size, append(used, hostRanges(want)...)); err != nil {
			return fmt.Errorf("user namespace auto: %w", err)
		}
		if e.idMaps.auto == nil {
			e.idMaps.auto = map[string]*userns.Allocation{}
		}
		e.idMaps.auto[options] = a
	}
	o.IDMap = isolation.IDMap{UID: fill(want.UID, a.UID, a.Size), GID: fill(want.GID, a.GID, a.Size)}
	return o.IDMap.Check()
}

// Auto are the options of a user namespace auto: Size ids (0: 65536, or what
// there is), of which some are given.
type Auto struct {
	Size     uint32
	UID, GID []specs.LinuxIDMapping
}

// ParseAuto reads "size=N,uidmapping=inside:outside:size,gidmapping=...".
func ParseAuto(text string) (a Auto, err error) {
	for option := range strings.SplitSeq(text, ",") {
		if option == "" {
			continue
		}
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "size":
			if _, e := fmt.Sscanf(value+"\n", "%d\n", &a.Size); e != nil || a.Size == 0 {
				return a, fmt.Errorf("user namespace auto:size=%s: want a number of ids, such as 65536: %w", value, define.ErrInvalid)
			}
		case "uidmapping", "gidmapping":
			list, err := isolation.ParseIDMap("user namespace auto:"+name+"=", []string{value})
			if err != nil {
				return a, err
			}
			if name == "uidmapping" {
				a.UID = append(a.UID, list...)
			} else {
				a.GID = append(a.GID, list...)
			}
		default:
			return a, fmt.Errorf("user namespace auto:%s: want size=, uidmapping= or gidmapping=: %w", option, define.ErrInvalid)
		}
	}
	return a, nil
}

// hostRanges are the ids that the given parts of a map take.
func hostRanges(a Auto) (out []userns.Range) {
	for _, m := range append(append([]specs.LinuxIDMapping(nil), a.UID...), a.GID...) {
		out = append(out, userns.Range{Start: m.HostID, Count: m.Size})
	}
	return out
}

// fill maps the ids below size that given has not to those from start on.
func fill(given []specs.LinuxIDMapping, start, size uint32) []specs.LinuxIDMapping {
	out := append([]specs.LinuxIDMapping(nil), given...)
	for at := uint64(0); at < uint64(size); {
		end, taken := uint64(size), false
		for _, m := range given {
			first, after := uint64(m.ContainerID), uint64(m.ContainerID)+uint64(m.Size)
			if at >= first && at < after {
				at, taken = after, true
				break
			}
			if first > at {
				end = min(end, first)
			}
		}
		if taken {
			continue
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: uint32(at), HostID: start + uint32(at), Size: uint32(end - at)})
		at = end
	}
	return out
}

// usedIDs are those that containers of the store are mapped to, podman's too.
func (e *Engine) usedIDs() (out []userns.Range, err error) {
	containers, err := e.store.Raw().Containers()
	if err != nil {
		return nil, fmt.Errorf("user namespace auto: %w", err)
	}
	for i := range containers {
		for _, m := range append(containers[i].UIDMap, containers[i].GIDMap...) {
			out = append(out, userns.Range{Start: uint32(m.HostID), Count: uint32(m.Size)})
		}
	}
	return out, nil
}

// mapStep has the step's root and trees show their owners through its map.
// What it returns is to be called when the step has ended, also after an error.
func (c *Container) mapStep(step *isolation.Step, mounts []isolation.Volume) (back func() error, err error) {
	var closers []func() error
	back = func() error {
		var err error
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	m := isolation.IDMap{UID: step.Spec.Linux.UIDMappings, GID: step.Spec.Linux.GIDMappings}
	if m.IsZero() {
		return back, nil
	}
	idmap, err := c.engine.mountMap(m)
	if err != nil || idmap == nil {
		return back, err
	}
	for _, v := range mounts {
		target := path.Clean(v.Target)
		tree := step.Spec.Trees[target]
		if v.Tree == nil || v.Mapped || tree == nil {
			continue
		}
		mapped, err := idmap.Clone(tree)
		if err != nil {
			return back, fmt.Errorf("volume %s: %w", v.Target, err)
		}
		closers = append(closers, mapped.Close)
		step.Spec.Trees[target] = mapped
	}
	root, end, err := c.working.Mapped(idmap)
	if err != nil {
		return back, fmt.Errorf("the step's root: %w", err)
	}
	closers = append(closers, end)
	step.Root = root
	return back, nil
}
