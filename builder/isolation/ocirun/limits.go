package ocirun

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// limit puts the limits into the bundle's document. The runtime makes the
// group, below its own or below the parent that the user has named.
func limit(linux *specs.Linux, l isolation.Limits, id string) {
	if l.IsZero() {
		return
	}
	var r specs.LinuxResources
	if linux.Resources != nil {
		r = *linux.Resources
	}
	if l.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.Memory}
		if l.MemorySwap != 0 {
			r.Memory.Swap = &l.MemorySwap
		}
	}
	if l.CPUShares != 0 || l.CPUQuota != 0 || l.CPUSetCPUs != "" || l.CPUSetMems != "" {
		r.CPU = &specs.LinuxCPU{Cpus: l.CPUSetCPUs, Mems: l.CPUSetMems}
		if l.CPUShares != 0 {
			r.CPU.Shares = &l.CPUShares
		}
		if l.CPUQuota != 0 {
			r.CPU.Quota = &l.CPUQuota
		}
		if l.CPUPeriod != 0 {
			r.CPU.Period = &l.CPUPeriod
		}
	}
	if l.PIDs > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.PIDs}
	}
	linux.Resources = &r
	if parent := l.ParentPath(); parent != "" {
		linux.CgroupsPath = path.Join(parent, id)
	}
}

// namespaceList are the step's namespaces, those given by descriptor by the path of
// the descriptor in this process.
func namespaceList(s *isolation.Spec) []specs.LinuxNamespace {
	list := make([]specs.LinuxNamespace, len(s.Linux.Namespaces))
	for i, n := range s.Linux.Namespaces {
		if f := s.Joined[n.Type]; f != nil {
			n.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
		}
		list[i] = n
	}
	return list
}

// deviceList denies all devices but those that the user gives the step.
func deviceList(s *isolation.Spec) []specs.LinuxDeviceCgroup {
	list := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, m := range s.Mounts {
		var st unix.Stat_t
		if m.Type != "bind" || unix.Stat(m.Source, &st) != nil {
			continue
		}
		kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
		if kind != "" {
			major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
			list = append(list, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rw"})
		}
	}
	return list
}

// checkWishes refuses what only the runtime could tell, too late.
func (r *oci) checkWishes(s *isolation.Spec) error {
	if s.KeepGroups && r.family() != "crun" {
		return fmt.Errorf("supplementary groups of this process (keep-groups): the OCI runtime %s cannot keep them, crun can: %w",
			r.name(), define.ErrUnsupported)
	}
	if !s.Limits.IsZero() && s.Limits.Manager == cgroup.ManagerSystemd {
		return fmt.Errorf("limits of the step: the OCI runtime makes its control group itself; "+
			"use --isolation embedded with --cgroup-manager systemd: %w", define.ErrUnsupported)
	}
	if !s.Limits.IsZero() && r.family() == "crun" && hybrid() {
		return fmt.Errorf("limits of the step: crun applies none on a host with both versions of control groups; "+
			"use --isolation embedded, or --runtime runc: %w", define.ErrUnsupported)
	}
	return nil
}

// hybrid reports a host that has both versions of control groups.
func hybrid() bool {
	var top, unified unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &top) == nil && top.Type == unix.TMPFS_MAGIC &&
		unix.Statfs("/sys/fs/cgroup/unified", &unified) == nil && unified.Type == unix.CGROUP2_SUPER_MAGIC
}

// refusedLimits adds the remedy to a runtime's complaint about limits.
func refusedLimits(s *isolation.Spec, err error) error {
	var exit *isolation.ExitError
	if err == nil || s.Limits.IsZero() || errors.As(err, &exit) || !strings.Contains(err.Error(), "cgroup") {
		return err
	}
	return fmt.Errorf("limits of the step cannot be applied: %w; run as root, or strata with systemd-run --user --scope -p Delegate=yes, "+
		"or leave the limits away: %w", err, define.ErrUnsupported)
}
