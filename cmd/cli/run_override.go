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
	for flag, set := range map[string]func(){
		"network":     func() { o.Network = given.Network },
		"shm-size":    func() { o.ShmSize = given.ShmSize },
		"dns":         func() { o.DNS = given.DNS },
		"dns-search":  func() { o.DNSSearch = given.DNSSearch },
		"dns-option":  func() { o.DNSOptions = given.DNSOptions },
		"http-proxy":  func() { o.HTTPProxy = given.HTTPProxy },
		"hostname":    func() { o.Hostname = given.Hostname },
		"no-hosts":    func() { o.NoHosts = given.NoHosts },
		"no-hostname": func() { o.NoHostname = given.NoHostname },
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
