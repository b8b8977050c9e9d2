package imagebuildah

import (
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// The functions here are pure: they turn what an instruction depends on into
// named parts. The order of the parts is the order in which differences are
// named to the user.

// withParent returns the key with the layer it stands on in front.
func withParent(k *cache.Key, parent define.LayerID) *cache.Key {
	if parent == "" {
		parent = "scratch"
	}
	full := &cache.Key{}
	full.Add("parent", string(parent))
	full.Append(k)
	return full
}

func copyKey(k *cache.Key) *cache.Key { return addParts(&cache.Key{}, k) }

func addParts(to, from *cache.Key) *cache.Key {
	to.Append(from)
	return to
}

// keyVersion changes when the same parts start to mean another result.
const keyVersion = "1"

// baseKey holds what counts for every step: the instruction, the platform
// and how times are written.
func (s *stage) baseKey(keyword string) *cache.Key {
	k := &cache.Key{}
	k.Add("instruction", keyword)
	k.Add("version", keyVersion)
	k.Add("platform", define.FormatPlatform(s.c.Image.Platform))
	if t := s.b.opts.Timestamp; t != nil {
		k.Add("--timestamp", strconv.FormatInt(t.Unix(), 10))
	}
	if t := s.b.opts.SourceDateEpoch; t != nil {
		k.Add("SOURCE_DATE_EPOCH", strconv.FormatInt(t.Unix(), 10))
		if s.b.opts.KeepFileTimes {
			k.Add("--rewrite-timestamp", "false")
		}
	}
	return k
}

// addList adds each value as a part of its own; the key's digest keeps
// ("a b") and ("a", "b") apart.
func addList(k *cache.Key, name string, values []string) {
	for _, v := range values {
		k.Add(name, v)
	}
}

// addEnv adds one part a variable, named after it.
func addEnv(k *cache.Key, kind string, env []string) {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		k.Add(kind+" "+name, value)
	}
}

// addConfinement adds the flags that a step can notice. Defaults add nothing,
// so that a new flag does not void older records. Limits count: a step sees
// them, as the number of CPUs that make(1) uses.
func addConfinement(k *cache.Key, r RunOptions) {
	// By these a step reaches the same outside: one that was built on the
	// host's network is not built again on a private one.
	switch r.Network {
	case "", builder.DefaultNetwork, isolation.NetworkHost, "private", "bridge":
	default:
		k.Add("--network", string(r.Network))
	}
	addList(k, "--cap-add", r.CapAdd)
	addList(k, "--cap-drop", r.CapDrop)
	addList(k, "--ulimit", r.Ulimits)
	addList(k, "--add-host", r.AddHosts)
	addList(k, "--dns", r.DNS)
	addList(k, "--dns-search", r.DNSSearch)
	addList(k, "--dns-option", r.DNSOptions)
	if r.ShmSize != 0 {
		k.Add("--shm-size", strconv.FormatInt(r.ShmSize, 10))
	}
	for _, v := range r.Volumes {
		k.Add("--volume", strings.Join([]string{v.Source, v.Target, strconv.FormatBool(v.ReadOnly), strings.Join(v.Options, ",")}, ":"))
	}
	addString := func(name, value string) {
		if value != "" {
			k.Add(name, value)
		}
	}
	addString("--hostname", r.Hostname)
	if r.NoHosts {
		k.Add("--no-hosts", "true")
	}
	if r.NoHostname {
		k.Add("--no-hostname", "true")
	}
	addList(k, "--group-add", r.GroupAdd)
	for _, d := range r.Devices {
		k.Add("--device", strings.Join([]string{d.Source, d.Target, d.Permissions}, ":"))
	}
	addString("--pid", string(r.Namespaces.PID))
	addString("--ipc", string(r.Namespaces.IPC))
	addString("--uts", string(r.Namespaces.UTS))
	addString("--cgroupns", string(r.Namespaces.Cgroup))
	addString("--userns", string(r.Namespaces.User))
	uids, gids := r.IDMap.Strings()
	addList(k, "--userns-uid-map", uids)
	addList(k, "--userns-gid-map", gids)
	addSecurity(k, r.Security)
	addLimits(k, r.Limits)
}

// addSecurity adds --security-opt; a seccomp profile counts with its content.
func addSecurity(k *cache.Key, s isolation.Security) {
	const name = "--security-opt"
	if s.SeccompUnconfined {
		k.Add(name, "seccomp=unconfined")
	}
	if len(s.SeccompProfile) > 0 {
		k.Add(name+" seccomp", string(digest.FromBytes(s.SeccompProfile)))
	}
	if s.NoNewPrivileges {
		k.Add(name, "no-new-privileges")
	}
	if s.AppArmor != "" {
		k.Add(name, "apparmor="+s.AppArmor)
	}
	addList(k, name+" mask", s.Mask)
	addList(k, name+" unmask", s.Unmask)
}

// addLimits adds what a step can see of its limits; the group that they are
// set in says nothing of itself.
func addLimits(k *cache.Key, l isolation.Limits) {
	add := func(name string, value int64) {
		if value != 0 {
			k.Add(name, strconv.FormatInt(value, 10))
		}
	}
	add("--memory", l.Memory)
	add("--memory-swap", l.MemorySwap)
	add("--cpu-shares", int64(l.CPUShares))
	add("--cpu-quota", l.CPUQuota)
	add("--cpu-period", int64(l.CPUPeriod))
	add("--pids-limit", l.PIDs)
	if l.CPUSetCPUs != "" {
		k.Add("--cpuset-cpus", l.CPUSetCPUs)
	}
	if l.CPUSetMems != "" {
		k.Add("--cpuset-mems", l.CPUSetMems)
	}
}
