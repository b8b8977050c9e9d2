package cdi

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// Edits are what a step that uses devices gets.
type Edits struct {
	Env    []string // "NAME=value", the later wins
	Nodes  []Node
	Mounts []Mount
	GIDs   []uint32
}

// Node is a device node of the host's, to be mounted.
type Node struct {
	HostPath, Path string
	Permissions    string // "" or of r, w and m
}

// Mount is a bind mount.
type Mount struct {
	HostPath, Path string
	Options        []string // of mount(8)
}

// Edits returns what the devices of these full names need: what their files
// say for all devices, once, and what they say for each. What strata does not
// do is an error that names it and wraps define.ErrUnsupported.
func (r *Registry) Edits(names []string) (*Edits, error) {
	out := &Edits{}
	var used []*Spec
	done := map[string]bool{}
	for _, name := range names {
		if done[name] {
			continue
		}
		done[name] = true
		d, err := r.Get(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(used, d.spec) {
			used = append(used, d.spec)
			err = out.add(&d.spec.Edits)
		}
		if err == nil {
			err = out.add(&d.own.Edits)
		}
		if err != nil {
			return nil, fmt.Errorf("CDI device %s (%s): %w", name, d.File, err)
		}
	}
	return out, nil
}

// Text tells edits apart, for keys of a cache.
func (e *Edits) Text() string {
	b, _ := json.Marshal(e) // strings and numbers: cannot fail
	return string(b)
}

func (e *Edits) add(s *SpecEdits) error {
	if len(s.Hooks) > 0 {
		h := s.Hooks[0]
		return fmt.Errorf("hook %s %s: strata starts no program of the host's for a step; take the hook out of the specification if the device works without: %w", h.HookName, h.Path, define.ErrUnsupported)
	}
	if len(s.NetDevices) > 0 {
		return fmt.Errorf("network device %s: is not in this version of strata: %w", s.NetDevices[0].HostInterfaceName, define.ErrUnsupported)
	}
	if s.IntelRdt != nil {
		return fmt.Errorf("intelRdt: partitions of the processor's cache are not in this version of strata: %w", define.ErrUnsupported)
	}
	for i := range s.DeviceNodes {
		n, err := s.DeviceNodes[i].node()
		if err != nil {
			return err
		}
		if !slices.Contains(e.Nodes, n) {
			e.Nodes = append(e.Nodes, n)
		}
	}
	for i := range s.Mounts {
		m, err := s.Mounts[i].mount()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(e.Mounts, func(o Mount) bool {
			return o.Path == m.Path && o.HostPath == m.HostPath && slices.Equal(o.Options, m.Options)
		}) {
			e.Mounts = append(e.Mounts, m)
		}
	}
	e.Env = append(e.Env, s.Env...)
	for _, gid := range s.AdditionalGIDs {
		if gid != 0 && !slices.Contains(e.GIDs, gid) { // 0 is ignored, says the specification
			e.GIDs = append(e.GIDs, gid)
		}
	}
	return nil
}

// node compares what the specification says of a node with the host's, which
// is what the step will get.
func (n *SpecNode) node() (Node, error) {
	out := Node{HostPath: n.HostPath, Path: n.Path, Permissions: n.Permissions}
	if out.HostPath == "" {
		out.HostPath = n.Path
	}
	info, err := os.Stat(out.HostPath)
	if err != nil {
		return out, fmt.Errorf("device node: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return out, fmt.Errorf("device node %s: is no device on this host: %w", out.HostPath, define.ErrUnsupported)
	}
	differs := func(what string) (Node, error) {
		return out, fmt.Errorf("device node %s: %s of the host's node is another than the specification's; nodes are mounted, not made: %w", out.HostPath, what, define.ErrUnsupported)
	}
	kind := "b"
	if info.Mode()&fs.ModeCharDevice != 0 {
		kind = "c"
	}
	major, minor := int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev))) //nolint:unconvert // 32 bits elsewhere
	switch {
	case n.Type != "" && strings.Replace(n.Type, "u", "c", 1) != kind:
		return differs("the type")
	case (n.Major != 0 || n.Minor != 0) && (n.Major != major || n.Minor != minor):
		return differs("the number")
	case n.FileMode != nil && *n.FileMode&0o7777 != uint32(info.Mode().Perm()):
		return differs("the mode")
	case n.UID != nil && *n.UID != st.Uid && st.Uid != unmapped:
		return differs("the owner")
	case n.GID != nil && *n.GID != st.Gid && st.Gid != unmapped:
		return differs("the group")
	}
	return out, nil
}

// unmapped stands for ids that a user namespace does not map, of which nothing
// can be told (/proc/sys/kernel/overflowuid).
const unmapped = 65534

func (m *SpecMount) mount() (Mount, error) {
	switch m.Type {
	case "", "bind", "none":
	default:
		return Mount{}, fmt.Errorf("mount on %s: type %q: only bind mounts can be made: %w", m.ContainerPath, m.Type, define.ErrUnsupported)
	}
	if m.HostPath == "/" {
		return Mount{}, fmt.Errorf("mount on %s: would show all of the host: %w", m.ContainerPath, define.ErrInvalid)
	}
	return Mount{HostPath: m.HostPath, Path: m.ContainerPath, Options: slices.Clone(m.Options)}, nil
}
