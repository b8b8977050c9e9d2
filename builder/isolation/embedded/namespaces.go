package embedded

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/define"
)

// cloneFlag is the kernel's name of a type; 0 is none that steps have.
func cloneFlag(t specs.LinuxNamespaceType) uintptr {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	}
	return 0
}

// namespaces translates which namespaces are made and which are joined; shared
// leaves out the pid namespace.
func (p *plan) namespaces(c *early.Config, s *isolation.Spec, shared bool) error {
	if err := p.mapped(s, shared); err != nil {
		return err
	}
	for _, n := range s.Linux.Namespaces {
		flag := cloneFlag(n.Type)
		given := s.Joined[n.Type]
		switch {
		case flag == 0:
			return fmt.Errorf("embedded isolation: %s namespace in the step's spec: %w", n.Type, define.ErrUnsupported)
		case n.Path == "" && given == nil:
			p.flags |= flag
			if n.Type == specs.NetworkNamespace {
				c.Flags |= early.LoopbackUp
			}
			continue
		case flag == unix.CLONE_NEWPID || flag == unix.CLONE_NEWNS:
			return fmt.Errorf("%s namespace %s: the embedded runtime joins none of this type; use --isolation oci: %w",
				n.Type, n.Path, define.ErrUnsupported)
		case flag == unix.CLONE_NEWUSER:
			return fmt.Errorf("user namespace %s: the embedded runtime joins none: give a map of ids: %w", n.Path, define.ErrUnsupported)
		}
		var fd int
		if given != nil {
			fd = int(given.Fd())
		} else {
			var err error
			if fd, err = unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return fmt.Errorf("%s namespace %s: %w", n.Type, n.Path, err)
			}
			p.opened = append(p.opened, fd)
		}
		if p.foreign != nil {
			p.foreign.joins = append(p.foreign.joins, join{fd, int(flag)})
			continue
		}
		c.Joins = append(c.Joins, early.Join{FD: p.add(fd), Type: uint32(flag)})
	}
	if p.flags&unix.CLONE_NEWNS == 0 {
		return fmt.Errorf("embedded isolation: a step without a mount namespace: %w", define.ErrUnsupported)
	}
	if shared {
		p.flags &^= unix.CLONE_NEWPID
	}
	if p.flags&unix.CLONE_NEWPID == 0 {
		c.Flags |= early.SharedPID
	}
	return p.limits(c, s)
}

// limits makes the step's control group; its process is put into it when
// there is one.
func (p *plan) limits(c *early.Config, s *isolation.Spec) (err error) {
	if s.Limits.IsZero() {
		return nil
	}
	if p.flags&unix.CLONE_NEWCGROUP != 0 {
		c.Flags |= early.NewCgroup
	}
	p.group, err = cgroup.New(s.Limits)
	return err
}
