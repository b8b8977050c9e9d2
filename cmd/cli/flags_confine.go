package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cdi"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// confineFlags are the limits of steps, and what they share with the host.
type confineFlags struct {
	memory, memorySwap     string
	cpuShares, cpuPeriod   uint64
	cpuQuota, pidsLimit    int64
	cpusetCPUs, cpusetMems string
	cgroupParent           string
	devices, groupAdd      []string
	cdiDir                 string
	securityOpts           []string
	pid, ipc, uts          string
	cgroupns               string
	userns                 usernsFlags
	noHosts, noHostname    bool
}

func (c *confineFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&c.memory, "memory", "m", "", "limit the memory of each RUN step to this `size`, in bytes or with a unit b, k, m or g")
	fs.StringVar(&c.memorySwap, "memory-swap", "", "limit memory and swap together to this `size`; -1 is as much swap as there is (default: twice --memory)")
	fs.Uint64VarP(&c.cpuShares, "cpu-shares", "c", 0, "`weight` of RUN steps against other groups of processes, 2 to 262144 (1024 is the usual one)")
	fs.Uint64Var(&c.cpuPeriod, "cpu-period", 0, "period of --cpu-quota, in `microseconds` (default 100000)")
	fs.Int64Var(&c.cpuQuota, "cpu-quota", 0, "limit RUN steps to so many `microseconds` of CPU time in each period")
	fs.StringVar(&c.cpusetCPUs, "cpuset-cpus", "", "run RUN steps on these CPUs, a `list` such as 0-2,4")
	fs.StringVar(&c.cpusetMems, "cpuset-mems", "", "use the memory of these nodes, a `list` such as 0,1")
	fs.Int64Var(&c.pidsLimit, "pids-limit", 0, "limit the `number` of processes and threads in each RUN step; -1 is no limit")
	fs.StringVar(&c.cgroupParent, "cgroup-parent", "", "make the control groups of RUN steps in this `group`, such as /builds or build.slice")
	fs.StringArrayVar(&c.devices, "device", nil, "let RUN steps use a device of the host, or a directory of them, as `source[:target[:permissions]]`, or a CDI device as vendor.com/class=name")
	fs.StringVar(&c.cdiDir, "cdi-config-dir", "", "look for specifications of CDI devices in this `directory` (default /etc/cdi and /var/run/cdi)")
	_ = cmd.MarkFlagDirname("cdi-config-dir")
	fs.StringSliceVar(&c.groupAdd, "group-add", nil, "give RUN steps a further `group` of the image, by name or number; keep-groups leaves them yours")
	fs.StringArrayVar(&c.securityOpts, "security-opt", nil, "set a security `option` of RUN steps: seccomp=unconfined, seccomp=FILE, no-new-privileges, apparmor=PROFILE, mask=PATH[:PATH...], unmask=ALL or unmask=PATH[:PATH...]")
	for _, n := range []struct {
		name, what string
		value      *string
	}{{"pid", "process numbers", &c.pid}, {"ipc", "shared memory and queues", &c.ipc}, {"uts", "host name", &c.uts}, {"cgroupns", "view of control groups", &c.cgroupns}} {
		fs.StringVar(n.value, n.name, "", "whose "+n.what+" RUN steps see: private, host, or a namespace's path; give the `mode` (default private)")
		_ = cmd.RegisterFlagCompletionFunc(n.name, fixedValues("private", "host"))
	}
	c.userns.add(cmd)
}

// addHostFiles adds the flags about files of the network, where no other part of
// the command has them.
func (c *confineFlags) addHostFiles(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&c.noHosts, "no-hosts", false, "leave the image's /etc/hosts to RUN steps")
	fs.BoolVar(&c.noHostname, "no-hostname", false, "leave the image's /etc/hostname to RUN steps")
}

// options checks the values and puts them into o.
func (c *confineFlags) options(o *imagebuildah.RunOptions) (err error) {
	o.NoHosts, o.NoHostname, o.GroupAdd = c.noHosts, c.noHostname, c.groupAdd
	mode := func(s string) isolation.NamespaceMode { return isolation.NamespaceMode(s) }
	o.Namespaces = isolation.Namespaces{PID: mode(c.pid), IPC: mode(c.ipc), UTS: mode(c.uts), Cgroup: mode(c.cgroupns)}
	if err := c.userns.options(o); err != nil {
		return err
	}
	o.Limits = isolation.Limits{CPUShares: c.cpuShares, CPUPeriod: c.cpuPeriod, CPUQuota: c.cpuQuota,
		CPUSetCPUs: c.cpusetCPUs, CPUSetMems: c.cpusetMems, PIDs: c.pidsLimit, Parent: c.cgroupParent}
	if o.Limits.Memory, err = memorySize("--memory", c.memory); err != nil {
		return err
	}
	if o.Limits.MemorySwap, err = memorySize("--memory-swap", c.memorySwap); err != nil {
		return err
	}
	for _, g := range c.groupAdd {
		if g == "" {
			return fmt.Errorf("--group-add: want a group's name or number: %w", define.ErrInvalid)
		}
	}
	if c.cdiDir != "" {
		dir, err := filepath.Abs(c.cdiDir)
		if err != nil {
			return fmt.Errorf("--cdi-config-dir: %w", err)
		}
		o.CDIDirs = []string{dir}
	}
	for _, d := range c.devices {
		if cdi.IsName(d) {
			o.CDI = append(o.CDI, d)
			continue
		}
		device, err := parseDevice(d)
		if err != nil {
			return err
		}
		o.Devices = append(o.Devices, device)
	}
	if err := builder.CheckCDI(o); err != nil {
		return fmt.Errorf("--device: %w", err)
	}
	for _, s := range c.securityOpts {
		if err := securityOption(&o.Security, s); err != nil {
			return err
		}
	}
	return nil
}

// memorySize reads a number of bytes; -1 is allowed for swap alone.
func memorySize(flag, s string) (int64, error) {
	switch {
	case s == "":
		return 0, nil
	case s == "-1" && flag == "--memory-swap":
		return -1, nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s %q: want bytes, or a number with a unit b, k, m or g: %w", flag, s, define.ErrInvalid)
	}
	return n, nil
}

// parseDevice reads source[:target][:permissions].
func parseDevice(s string) (isolation.Device, error) {
	if !strings.HasPrefix(s, "/") && strings.Contains(s, "=") {
		return isolation.Device{}, fmt.Errorf("--device %q: want a path, or a CDI device's full name such as vendor.com/class=name: %w", s, define.ErrInvalid)
	}
	parts := strings.Split(s, ":")
	d := isolation.Device{Source: parts[0]}
	for _, p := range parts[1:] {
		switch {
		case strings.HasPrefix(p, "/") && d.Target == "" && d.Permissions == "":
			d.Target = p
		case p != "" && strings.Trim(p, "rwm") == "" && d.Permissions == "":
			d.Permissions = p
		default:
			return d, fmt.Errorf("--device %q: want source[:target[:permissions]], such as /dev/fuse:/dev/fuse:rw: %w", s, define.ErrInvalid)
		}
	}
	return d, nil
}

// maxProfile bounds a seccomp profile; docker's has 13 kB.
const maxProfile = 4 << 20

// securityOption adds one --security-opt to o.
func securityOption(o *isolation.Security, text string) error {
	name, value, given := strings.Cut(text, "=")
	if !given {
		// docker's older spelling.
		name, value, given = strings.Cut(text, ":")
	}
	bad := func(want string) error {
		return fmt.Errorf("--security-opt %q: want %s: %w", text, want, define.ErrInvalid)
	}
	switch name {
	case "no-new-privileges":
		o.NoNewPrivileges = true
		if given {
			on, err := strconv.ParseBool(value)
			if err != nil {
				return bad("no-new-privileges or no-new-privileges=false")
			}
			o.NoNewPrivileges = on
		}
		return nil
	case "seccomp":
		return seccompOption(o, value)
	case "apparmor":
		if value == "" {
			return bad("apparmor=PROFILE or apparmor=unconfined")
		}
		o.AppArmor = value
		return nil
	case "mask", "unmask":
		for p := range strings.SplitSeq(value, ":") {
			if !path.IsAbs(p) && (name == "mask" || !strings.EqualFold(p, "all")) {
				return bad(name + "=/PATH[:/PATH...]" + map[bool]string{true: " or unmask=ALL"}[name == "unmask"])
			}
			if name == "mask" {
				o.Mask = append(o.Mask, p)
			} else if path.IsAbs(p) {
				o.Unmask = append(o.Unmask, p)
			} else {
				o.Unmask = append(o.Unmask, "ALL")
			}
		}
		return nil
	case "systempaths":
		if value != "unconfined" {
			return bad("systempaths=unconfined")
		}
		o.Unmask = append(o.Unmask, "ALL")
		return nil
	case "label":
		return labelOption(value, bad)
	}
	return bad("one of seccomp=, no-new-privileges, apparmor=, label=, mask=, unmask= and systempaths=unconfined")
}

// labelOption accepts what is so anyway: steps keep strata's own SELinux
// label, and where SELinux is off there are none.
func labelOption(value string, bad func(string) error) error {
	kind, _, _ := strings.Cut(value, ":")
	switch kind {
	case "disable", "nested":
		return nil
	case "user", "role", "type", "level", "filetype":
		if _, err := os.Stat("/sys/fs/selinux/enforce"); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("--security-opt label=%s: labels of steps are not in this version of strata, which leaves them its own; use label=disable: %w",
			value, define.ErrUnsupported)
	}
	return bad("label=disable, or label=type:TYPE and its kin")
}

func seccompOption(o *isolation.Security, value string) error {
	o.SeccompUnconfined, o.SeccompProfile = false, nil
	switch value {
	case "unconfined":
		o.SeccompUnconfined = true
		return nil
	case "default", "builtin":
		return nil
	case "":
		return fmt.Errorf("--security-opt seccomp=: want seccomp=unconfined, seccomp=builtin or seccomp=FILE: %w", define.ErrInvalid)
	}
	f, err := os.Open(value)
	if err != nil {
		return fmt.Errorf("--security-opt seccomp: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return fmt.Errorf("--security-opt seccomp: %w", err)
	}
	if len(b) > maxProfile || len(b) == 0 {
		return fmt.Errorf("--security-opt seccomp=%s: has %d bytes, want a profile of up to %d: %w", value, len(b), maxProfile, define.ErrInvalid)
	}
	if !json.Valid(b) {
		return fmt.Errorf("--security-opt seccomp=%s: is no JSON, as a seccomp profile is: %w", value, define.ErrInvalid)
	}
	o.SeccompProfile = b
	return nil
}
