package isolation

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/define"
)

// capabilityNames are Linux's capabilities, each at its number
// (include/uapi/linux/capability.h, 6.18).
var capabilityNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCapabilities are those that podman 4 and buildah give: no NET_RAW
// (CVE-2020-13401), MKNOD or AUDIT_WRITE.
var defaultCapabilities = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// CapabilityNumber returns the kernel's number of a capability
// ("CAP_NET_ADMIN"), and whether there is one of the name.
func CapabilityNumber(name string) (int, bool) {
	n := slices.Index(capabilityNames[:], name)
	return n, n >= 0
}

// grantable are the capabilities in this process's bounding set: no child of
// ours can have others.
var grantable = sync.OnceValue(func() []string {
	var have []string
	for n, name := range capabilityNames {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil && set == 1 {
			have = append(have, name)
		}
	}
	return have
})

// capabilities returns the step's bounding set, sorted: the defaults, plus
// CapAdd, minus CapDrop. "ALL" in CapAdd is all that this process can give;
// in CapDrop it empties the set before CapAdd's single names are added.
func capabilities(o Options) ([]string, error) {
	add, addAll, err := capabilityList("capability to add", o.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := capabilityList("capability to drop", o.CapDrop)
	if err != nil {
		return nil, err
	}
	have := grantable()
	for _, c := range add {
		if slices.Contains(drop, c) {
			return nil, fmt.Errorf("capability %s: is both added and dropped: %w", c, define.ErrInvalid)
		}
		if !slices.Contains(have, c) {
			return nil, fmt.Errorf("capability %s: this process does not have it itself (bounding set), "+
				"so no step can: %w", c, define.ErrUnsupported)
		}
	}
	var set []string
	switch {
	case addAll && dropAll:
		return nil, fmt.Errorf("capability ALL: is both added and dropped: %w", define.ErrInvalid)
	case addAll:
		set = append(set, have...)
	case !dropAll:
		for _, c := range defaultCapabilities {
			if slices.Contains(have, c) {
				set = append(set, c)
			}
		}
	}
	set = append(set, add...)
	set = slices.DeleteFunc(set, func(c string) bool { return slices.Contains(drop, c) })
	slices.Sort(set)
	return slices.Compact(set), nil
}

// capabilityList normalises names.
func capabilityList(field string, names []string) (list []string, all bool, err error) {
	for _, n := range names {
		c := strings.ToUpper(strings.TrimSpace(n))
		if c == "ALL" || c == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if _, ok := CapabilityNumber(c); !ok {
			return nil, false, fmt.Errorf("%s %q: no such capability; the nearest is %s: %w",
				field, n, nearest(c, capabilityNames[:]), define.ErrInvalid)
		}
		list = append(list, c)
	}
	return list, all, nil
}

// nearest returns the candidate with the smallest edit distance to s.
func nearest(s string, candidates []string) string {
	best, bestDistance := "", 1<<10
	if len(s) > 64 {
		s = s[:64]
	}
	for _, c := range candidates {
		if d := define.Distance(s, c, bestDistance); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

var profiles struct {
	sync.Mutex
	byCaps map[string]*specs.LinuxSeccomp
}

// defaultProfile returns the default seccomp profile for a capability set.
// Steps mostly share one set, so the result is kept.
func defaultProfile(caps []string) (*specs.LinuxSeccomp, error) {
	key := strings.Join(caps, ",")
	profiles.Lock()
	defer profiles.Unlock()
	if p := profiles.byCaps[key]; p != nil {
		return p, nil
	}
	p, err := seccomp.Default(caps)
	if err != nil {
		return nil, err
	}
	if profiles.byCaps == nil {
		profiles.byCaps = map[string]*specs.LinuxSeccomp{}
	}
	profiles.byCaps[key] = p
	return p, nil
}
