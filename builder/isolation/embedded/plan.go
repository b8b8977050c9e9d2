package embedded

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/define"
)

// plan is a step in the form that early takes.
type plan struct {
	config []byte
	fds    []int
	opened []int   // of fds, those that are ours to close
	flags  uintptr // the namespaces that are made for the step
	group  *cgroup.Group
	owners *remembering // nil: they are not remembered
	// foreign is set where the step has a user namespace of its own.
	foreign *foreign
}

func (p *plan) close() error {
	for _, fd := range p.opened {
		unix.Close(fd)
	}
	p.opened = nil
	return p.group.Remove()
}

// plan translates s.
func (d *driver) plan(s *isolation.Step) (_ *plan, err error) {
	if what := unsupported(s.Spec); what != "" {
		return nil, fmt.Errorf("embedded isolation: %s in the step's spec: %w", what, define.ErrUnsupported)
	}
	p := &plan{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	rootAttr := uint64(unix.MOUNT_ATTR_NODEV)
	if s.Spec.Root != nil && s.Spec.Root.Readonly {
		rootAttr |= unix.MOUNT_ATTR_RDONLY
	}
	root, err := p.tree(int(s.Root.Fd()), "", rootAttr, nil)
	if err != nil {
		return nil, fmt.Errorf("step's root: %w", err)
	}
	if err := isolation.Executable(root); err != nil {
		return nil, fmt.Errorf("embedded isolation: %w", err)
	}
	process := s.Spec.Process
	c := &early.Config{
		Hostname: s.Spec.Hostname,
		Masked:   s.Spec.Linux.MaskedPaths,
		Readonly: s.Spec.Linux.ReadonlyPaths,
		UID:      process.User.UID,
		GID:      process.User.GID,
		Groups:   process.User.AdditionalGids,
		Cwd:      process.Cwd,
		Args:     process.Args,
		Env:      process.Env,
		AppArmor: process.ApparmorProfile,
	}
	p.fds = append(p.fds, root, -1, -1, -1)
	if err := p.namespaces(c, s.Spec, d.o.SharedPID); err != nil {
		return nil, err
	}
	p.stdio(c, s, root)
	if err := p.identity(c, s.Spec); err != nil {
		return nil, err
	}
	if err := p.mounts(c, s.Spec); err != nil {
		return nil, err
	}
	if c.Seccomp, err = d.program(s.Spec.Linux.Seccomp); err != nil {
		return nil, err
	}
	if err := d.tell(c, s); err != nil {
		return nil, err
	}
	if err := d.remember(p, c, s); err != nil {
		return nil, err
	}
	p.config = c.Encode()
	return p, nil
}

// unsupported names what a hand-made document asks for and this driver does
// not do. NewSpec never makes such a one.
func unsupported(s *isolation.Spec) string {
	l := s.Linux
	switch {
	case s.Hooks != nil:
		return "hooks"
	case l.Resources != nil:
		return "resource limits"
	case len(l.Devices) > 0:
		return "devices"
	case s.HasNamespace(specs.UserNamespace) != (len(l.UIDMappings) > 0 && len(l.GIDMappings) > 0):
		return "a user namespace without both id mappings, or these without it"
	case len(l.Sysctl) > 0:
		return "sysctls"
	case s.Process.SelinuxLabel != "" || l.MountLabel != "":
		return "security labels"
	case s.Process.OOMScoreAdj != nil || s.Process.Scheduler != nil || s.Process.IOPriority != nil:
		return "scheduling attributes"
	}
	return ""
}

// stdio adds the standard three; where the step has none, a copy of another
// descriptor fills the place.
func (p *plan) stdio(c *early.Config, s *isolation.Step, filler int) {
	if t := s.Spec.Terminal; t != nil {
		c.Flags |= early.Terminal
		c.Rows, c.Columns = uint32(t.Size.Rows), uint32(t.Size.Columns)
		p.fds[early.StdinFD], p.fds[early.StdoutFD], p.fds[early.StderrFD] = filler, filler, filler
		return
	}
	for i, std := range []struct {
		file *os.File
		flag uint32
	}{{s.Stdin, early.HasStdin}, {s.Stdout, early.HasStdout}, {s.Stderr, early.HasStderr}} {
		if std.file == nil {
			p.fds[early.StdinFD+i] = filler
			continue
		}
		c.Flags |= std.flag
		p.givePipe(std.file, s.Spec)
		p.fds[early.StdinFD+i] = int(std.file.Fd())
	}
}

// identity translates ids, capabilities and limits.
func (p *plan) identity(c *early.Config, s *isolation.Spec) error {
	process := s.Process
	if process.NoNewPrivileges {
		c.Flags |= early.NoNewPrivileges
	}
	switch {
	case s.KeepGroups:
	case !host().denySetgroup:
		c.Flags |= early.SetGroups
	case len(c.Groups) > 0:
		return fmt.Errorf("supplementary groups %v: setgroups(2) is denied in this user namespace: %w", c.Groups, define.ErrUnsupported)
	}
	if caps := process.Capabilities; caps != nil {
		var err error
		if c.Bounding, err = capabilitySet(caps.Bounding); err != nil {
			return err
		}
		if c.Effective, err = capabilitySet(caps.Effective); err != nil {
			return err
		}
		if len(caps.Inheritable)+len(caps.Ambient) > 0 {
			return fmt.Errorf("inheritable or ambient capabilities: steps never have any: %w", define.ErrUnsupported)
		}
	}
	for _, l := range process.Rlimits {
		n, ok := isolation.RlimitNumber(l.Type)
		if !ok {
			return fmt.Errorf("limit %q: want a name such as RLIMIT_NOFILE: %w", l.Type, define.ErrInvalid)
		}
		c.Rlimits = append(c.Rlimits, early.Rlimit{Resource: uint32(n), Soft: l.Soft, Hard: l.Hard})
	}
	if p.foreign != nil {
		p.foreign.hard = c.Rlimits
	}
	switch {
	case host().userns, p.foreign != nil:
		c.Devices = early.DevicesBind
	case c.Bounding&(1<<unix.CAP_MKNOD) != 0:
		c.Devices = early.DevicesCover
	default:
		c.Devices = early.DevicesMake
	}
	return nil
}

func capabilitySet(names []string) (set uint64, err error) {
	for _, name := range names {
		n, ok := isolation.CapabilityNumber(name)
		if !ok {
			return 0, fmt.Errorf("capability %q: no such capability: %w", name, define.ErrInvalid)
		}
		set |= 1 << n
	}
	return set, nil
}

// mounts translates the mounts and the files.
func (p *plan) mounts(c *early.Config, s *isolation.Spec) error {
	for i := range s.Mounts {
		m, err := p.mount(c, s, &s.Mounts[i])
		if err != nil {
			return fmt.Errorf("mount %s: %w", s.Mounts[i].Destination, err)
		}
		if m != nil {
			c.Mounts = append(c.Mounts, *m)
		}
	}
	for target, content := range s.Files {
		c.Files = append(c.Files, early.File{Target: target, Content: content})
	}
	slices.SortFunc(c.Files, func(a, b early.File) int { return strings.Compare(a.Target, b.Target) })
	return nil
}

// add returns the index of a descriptor that goes along.
func (p *plan) add(fd int) uint32 {
	p.fds = append(p.fds, fd)
	return uint32(len(p.fds) - 1)
}

// mount translates one mount; nil leaves it out.
func (p *plan) mount(c *early.Config, s *isolation.Spec, m *specs.Mount) (*early.Mount, error) {
	attr, options := attributes(m.Options)
	out := &early.Mount{Target: m.Destination, FSType: m.Type, Options: options, Attr: attr}
	switch m.Destination {
	case "/proc", "/sys", "/dev":
		out.Flags |= early.TargetKernel
	}
	switch m.Type {
	case "bind":
		// Attributes are set here, on the clone.
		out.Kind, out.FSType, out.Options, out.Attr = early.MountTree, "", nil, 0
		if len(options) > 0 {
			return nil, fmt.Errorf("option %q: not one of a bind mount: %w", options[0], define.ErrInvalid)
		}
		source, from := m.Source, unix.AT_FDCWD
		if tree := s.Trees[m.Destination]; tree != nil {
			source, from = "", int(tree.Fd())
		}
		fd, err := p.tree(from, source, attr, m.Options)
		if err != nil {
			return nil, err
		}
		out.FD = p.add(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			out.Flags |= early.IsDir
		}
	case "cgroup":
		if !host().cgroup2 {
			// With the old hierarchies, /sys/fs/cgroup of a fresh sysfs is an
			// empty directory: nothing of the host's to be seen or written.
			return nil, nil
		}
		out.FSType, out.Options = "cgroup2", nil
		out.Flags |= early.Optional
	case "mqueue":
		out.Flags |= early.Optional
	case "sysfs":
		out.Flags |= early.OrHost
	case "tmpfs":
		if m.Destination == "/dev" {
			out.Flags |= early.IsDev
			if c.Devices != early.DevicesMake {
				out.Attr |= unix.MOUNT_ATTR_NODEV
			}
		}
	case "devpts":
		out.Flags |= early.IsPts
	case "proc":
	default:
		return nil, fmt.Errorf("type %q: want bind, tmpfs or one of the kernel's: %w", m.Type, define.ErrUnsupported)
	}
	return out, nil
}

// attributes splits options into those of the mount and those of the file
// system.
func attributes(options []string) (attr uint64, rest []string) {
	for _, o := range options {
		switch o {
		case "ro", "rro":
			attr |= unix.MOUNT_ATTR_RDONLY
		case "nosuid":
			attr |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			attr |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			attr |= unix.MOUNT_ATTR_NOEXEC
		case "noatime":
			attr |= unix.MOUNT_ATTR_NOATIME
		case "strictatime":
			attr |= unix.MOUNT_ATTR_STRICTATIME
		case "rw", "suid", "dev", "exec", "relatime", "bind", "rbind", "private", "rprivate", "shared", "rshared":
		default:
			rest = append(rest, o)
		}
	}
	return attr, rest
}

// tree makes a detached copy of the mount at path below from, out of all peer
// groups, and sets attributes. All that is mounted below path is in it, unless
// options have bind.
func (p *plan) tree(from int, path string, attr uint64, options []string) (int, error) {
	flags := isolation.CloneFlags(options)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH | unix.AT_RECURSIVE // a given tree is what it is
	}
	fd, err := unix.OpenTree(from, path, flags)
	switch {
	case err == nil:
		p.opened = append(p.opened, fd)
	case path == "" && errors.Is(err, unix.EINVAL):
		// A detached mount, which kernels before 6.15 do not clone.
		fd = from
	default:
		return -1, fmt.Errorf("clone the mount of %s: %w", path, isolation.ExplainClone(err, specs.Mount{Source: path, Options: options}))
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return -1, fmt.Errorf("set the mount's attributes: %w", err)
	}
	return fd, isolation.Propagate(fd, options)
}

// program returns the profile's filter. Steps mostly share one profile, so
// programs are kept.
func (d *driver) program(profile *specs.LinuxSeccomp) ([]byte, error) {
	if profile == nil {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if b, ok := d.programs[profile]; ok {
		return b, nil
	}
	b, err := seccomp.Compile(profile)
	if err != nil {
		return nil, err
	}
	d.programs[profile] = b
	return b, nil
}
