package isolation

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

// defaultShmSize is what docker and podman give, 64 MiB.
const defaultShmSize = 64 << 20

// devptsGroup is "tty" on every distribution.
const devptsGroup = 5

// maskedPaths are hidden: they tell of the host or of other containers, or
// act on it. Paths that the kernel does not have are passed over.
// /sys/devices/virtual/powercap is CVE-2020-8694's side channel
// (GHSA-7ww5-4wqc-m92c).
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/dev/block", "/sys/firmware", "/sys/fs/selinux",
	}
}

// readonlyPaths are those of /proc that act on the host when written to.
func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// mounts fills s.Mounts and s.Trees: the kernel's file systems, then the
// user's volumes, outer ones first.
func (s *Spec) mounts(o Options) error {
	volumes, trees, err := volumes(o.Volumes, o.Devices)
	if err != nil {
		return err
	}
	shm := o.ShmSize
	switch {
	case shm < 0:
		return fmt.Errorf("size of /dev/shm %d: want bytes: %w", shm, define.ErrInvalid)
	case shm == 0:
		shm = defaultShmSize
	}
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if _, ok := o.IDMap.GroupOutside(devptsGroup); ok && !o.SingleID {
		// Where the id is not mapped, the option is EINVAL.
		pts = append(pts, "gid="+strconv.Itoa(devptsGroup))
	}
	base := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=0755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
	}
	base = append(append(base, ipcMounts(o, shm)...), sysMount(o), specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}})
	for _, m := range base {
		// A volume of the user's on /dev/shm and the like takes its place.
		if !slices.ContainsFunc(volumes, func(v specs.Mount) bool { return v.Destination == m.Destination }) {
			s.Mounts = append(s.Mounts, m)
		}
	}
	s.Mounts = append(s.Mounts, volumes...)
	s.Trees = trees
	return nil
}

// ipcMounts are those of memory and queues that processes share. They belong
// to the ipc namespace: with the host's come the host's.
func ipcMounts(o Options, shm int64) []specs.Mount {
	if o.Namespaces.IPC != NamespaceHost {
		return []specs.Mount{
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{
				"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		}
	}
	var list []specs.Mount
	for _, dir := range []string{"/dev/shm", "/dev/mqueue"} {
		if _, err := os.Stat(dir); err == nil {
			list = append(list, specs.Mount{Destination: dir, Type: "bind", Source: dir,
				Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}})
		}
	}
	return list
}

// sysMount is a sysfs of the step's own where the kernel allows one: its
// network namespace must belong to its user namespace. Rootless steps on the
// host's network, and those with a map of ids on one that is not theirs, get
// the host's tree, read-only throughout.
func sysMount(o Options) specs.Mount {
	if o.Rootless && o.Network == NetworkHost || !o.IDMap.IsZero() && o.Network != NetworkNone {
		return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys",
			Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro", "rro"}}
	}
	return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs",
		Options: []string{"nosuid", "noexec", "nodev", "ro"}}
}

// volumes translates the user's bind mounts, sorted so that outer targets
// come before those inside them.
func volumes(list []Volume, nodes []Device) ([]specs.Mount, map[string]*os.File, error) {
	mounts, err := devices(nodes)
	if err != nil {
		return nil, nil, err
	}
	trees := map[string]*os.File{}
	for _, v := range list {
		target, err := volumeTarget(v.Target)
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(mounts, func(m specs.Mount) bool { return m.Destination == target }) {
			return nil, nil, fmt.Errorf("volume %s: two mounts have this target: %w", target, define.ErrInvalid)
		}
		options, err := volumeOptions(v)
		if err != nil {
			return nil, nil, err
		}
		m := specs.Mount{Destination: target, Type: "bind", Options: options}
		if v.Tree != nil {
			trees[target] = v.Tree
		} else {
			if !path.IsAbs(v.Source) || strings.ContainsRune(v.Source, 0) {
				return nil, nil, fmt.Errorf("volume %s: source %q: want an absolute path: %w", target, v.Source, define.ErrInvalid)
			}
			if _, err := os.Stat(v.Source); err != nil {
				return nil, nil, fmt.Errorf("volume %s: source: %w", target, err)
			}
			m.Source = v.Source
		}
		mounts = append(mounts, m)
	}
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return mounts, trees, nil
}

// volumeTarget cleans a target and refuses those that would take the place of
// what makes the step a container.
func volumeTarget(unsafeTarget string) (string, error) {
	if !path.IsAbs(unsafeTarget) || strings.ContainsRune(unsafeTarget, 0) {
		return "", fmt.Errorf("volume target %q: want an absolute path: %w", unsafeTarget, define.ErrInvalid)
	}
	t := path.Clean(unsafeTarget)
	switch {
	case t == "/":
		return "", fmt.Errorf("volume target %q: cannot cover the root: %w", unsafeTarget, define.ErrInvalid)
	case t == "/dev" || t == "/sys" || t == "/proc" || strings.HasPrefix(t, "/proc/"):
		// A process that can choose what /proc is can redirect the writes that
		// confine it (CVE-2019-19921, CVE-2025-52881).
		return "", fmt.Errorf("volume target %s: the step's own %s is mounted there: %w",
			t, "/"+strings.SplitN(t, "/", 3)[1], define.ErrInvalid)
	}
	return t, nil
}

// volumeOptions checks v's options and adds the defaults.
func volumeOptions(v Volume) ([]string, error) {
	out := []string{"rbind", "rprivate"}
	readOnly, dev := v.ReadOnly, false
	for _, option := range v.Options {
		switch option {
		case "ro", "readonly", "rro":
			readOnly = true
		case "bind", "rbind":
			out[0] = option
		case "private", "rprivate", "slave", "rslave":
			out[1] = "rprivate" // of which a slave would be: see Volume.Options
		case "shared", "rshared":
			out[1] = option
		case "rw", "suid", "exec", "nodev", "":
		case "dev":
			dev = true
		case "nosuid", "noexec":
			if !slices.Contains(out, option) {
				out = append(out, option)
			}
		case "U", "O", "z", "Z":
			return nil, fmt.Errorf("volume %s: option %s: is no option of a mount: %w", v.Target, option, define.ErrUnsupported)
		case "idmap":
			return nil, fmt.Errorf("volume %s: option idmap: mounts with ids of their own are not in this version of strata; "+
				"use option U, which gives the source to the step's user: %w", v.Target, define.ErrUnsupported)
		case "unbindable", "runbindable":
			return nil, fmt.Errorf("volume %s: propagation %s: want private, shared, slave, or one of them with an r before it: %w",
				v.Target, option, define.ErrUnsupported)
		default:
			if strings.HasPrefix(option, "upperdir=") || strings.HasPrefix(option, "workdir=") || strings.HasPrefix(option, "idmap=") {
				name, _, _ := strings.Cut(option, "=")
				return nil, fmt.Errorf("volume %s: option %s=: is not in this version of strata: %w", v.Target, name, define.ErrUnsupported)
			}
			return nil, fmt.Errorf("volume %s: option %q: want ro, rw, O, U, nosuid, nodev, dev, noexec, bind, rbind, a propagation such as rprivate, z or Z: %w",
				v.Target, option, define.ErrInvalid)
		}
	}
	if readOnly {
		out = append(out, "ro", "rro")
	}
	if !dev {
		// There is no device cgroup: what cannot be opened needs no list.
		out = append(out, "nodev")
	}
	return out, nil
}
