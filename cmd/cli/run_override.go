package cli

import (
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder"
)

// overrideRun is what a run in a container is confined by: the container's
// defaults, and what the run's own flags say. Lists add to the container's;
// other flags replace its values when they were given.
func overrideRun(defaults, given builder.Confinement, changed func(string) bool) builder.Confinement {
	o := defaults
	o.CapAdd = append(withoutCaps(defaults.CapAdd, given.CapDrop), given.CapAdd...)
	o.CapDrop = append(withoutCaps(defaults.CapDrop, given.CapAdd), given.CapDrop...)
	o.Ulimits = slices.Concat(defaults.Ulimits, given.Ulimits)
	o.AddHosts = slices.Concat(defaults.AddHosts, given.AddHosts)
	o.Volumes = slices.Concat(defaults.Volumes, given.Volumes)
	o.Devices = slices.Concat(defaults.Devices, given.Devices)
	o.CDI = slices.Concat(defaults.CDI, given.CDI)
	o.GroupAdd = slices.Concat(defaults.GroupAdd, given.GroupAdd)
	if slices.ContainsFunc([]string{"userns", "userns-uid-map", "userns-gid-map", "userns-uid-map-user", "userns-gid-map-group"}, changed) {
		o.Namespaces.User, o.IDMap = given.Namespaces.User, given.IDMap
	}
	for flag, set := range map[string]func(){
		"network":        func() { o.Network = given.Network },
		"shm-size":       func() { o.ShmSize = given.ShmSize },
		"dns":            func() { o.DNS = given.DNS },
		"dns-search":     func() { o.DNSSearch = given.DNSSearch },
		"dns-option":     func() { o.DNSOptions = given.DNSOptions },
		"http-proxy":     func() { o.HTTPProxy = given.HTTPProxy },
		"hostname":       func() { o.Hostname = given.Hostname },
		"cdi-config-dir": func() { o.CDIDirs = given.CDIDirs },
		"no-hosts":       func() { o.NoHosts = given.NoHosts },
		"no-hostname":    func() { o.NoHostname = given.NoHostname },

		"pid":          func() { o.Namespaces.PID = given.Namespaces.PID },
		"ipc":          func() { o.Namespaces.IPC = given.Namespaces.IPC },
		"uts":          func() { o.Namespaces.UTS = given.Namespaces.UTS },
		"cgroupns":     func() { o.Namespaces.Cgroup = given.Namespaces.Cgroup },
		"security-opt": func() { o.Security = given.Security },

		"memory":        func() { o.Limits.Memory = given.Limits.Memory },
		"memory-swap":   func() { o.Limits.MemorySwap = given.Limits.MemorySwap },
		"cpu-shares":    func() { o.Limits.CPUShares = given.Limits.CPUShares },
		"cpu-period":    func() { o.Limits.CPUPeriod = given.Limits.CPUPeriod },
		"cpu-quota":     func() { o.Limits.CPUQuota = given.Limits.CPUQuota },
		"cpuset-cpus":   func() { o.Limits.CPUSetCPUs = given.Limits.CPUSetCPUs },
		"cpuset-mems":   func() { o.Limits.CPUSetMems = given.Limits.CPUSetMems },
		"pids-limit":    func() { o.Limits.PIDs = given.Limits.PIDs },
		"cgroup-parent": func() { o.Limits.Parent = given.Limits.Parent },
	} {
		if changed(flag) {
			set()
		}
	}
	return o
}

// withoutCaps leaves out the capabilities that a nearer flag decides about.
func withoutCaps(list, nearer []string) []string {
	plain := func(s string) string { return strings.TrimPrefix(strings.ToUpper(s), "CAP_") }
	var out []string
	for _, c := range list {
		if !slices.ContainsFunc(nearer, func(n string) bool { return plain(n) == plain(c) }) {
			out = append(out, c)
		}
	}
	return out
}
