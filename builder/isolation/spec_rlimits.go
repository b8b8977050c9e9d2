package isolation

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// rlimitNames are the resources of getrlimit(2), each at its number.
var rlimitNames = [...]string{
	unix.RLIMIT_CPU: "cpu", unix.RLIMIT_FSIZE: "fsize", unix.RLIMIT_DATA: "data", unix.RLIMIT_STACK: "stack",
	unix.RLIMIT_CORE: "core", unix.RLIMIT_RSS: "rss", unix.RLIMIT_NPROC: "nproc", unix.RLIMIT_NOFILE: "nofile",
	unix.RLIMIT_MEMLOCK: "memlock", unix.RLIMIT_AS: "as", unix.RLIMIT_LOCKS: "locks",
	unix.RLIMIT_SIGPENDING: "sigpending", unix.RLIMIT_MSGQUEUE: "msgqueue", unix.RLIMIT_NICE: "nice",
	unix.RLIMIT_RTPRIO: "rtprio", unix.RLIMIT_RTTIME: "rttime",
}

// RlimitNumber returns the kernel's number of a runtime-spec resource
// ("RLIMIT_NOFILE"), and whether there is one of the name.
func RlimitNumber(name string) (int, bool) {
	short, ok := strings.CutPrefix(name, "RLIMIT_")
	if !ok {
		return 0, false
	}
	n := slices.Index(rlimitNames[:], strings.ToLower(short))
	return n, n >= 0
}

// rlimits reads "name=soft[:hard]". Hard limits, and soft ones that are
// unlimited, are lowered to what this process may give.
func rlimits(ulimits []string, rootless bool) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, u := range ulimits {
		name, value, ok := strings.Cut(u, "=")
		if !ok {
			return nil, fmt.Errorf("ulimit %q: want name=soft[:hard], such as nofile=1024:2048: %w", u, define.ErrInvalid)
		}
		name = strings.ToLower(strings.TrimPrefix(strings.ToUpper(name), "RLIMIT_"))
		resource := slices.Index(rlimitNames[:], name)
		if resource < 0 {
			return nil, fmt.Errorf("ulimit %q: no such limit; the nearest is %s: %w",
				u, nearest(name, rlimitNames[:]), define.ErrInvalid)
		}
		softText, hardText, two := strings.Cut(value, ":")
		if !two {
			hardText = softText
		}
		soft, err1 := rlimitValue(softText)
		hard, err2 := rlimitValue(hardText)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("ulimit %q: want numbers, -1 or unlimited: %w", u, define.ErrInvalid)
		}
		if soft > hard {
			return nil, fmt.Errorf("ulimit %q: the soft limit is above the hard one: %w", u, define.ErrInvalid)
		}
		asked := soft
		hard = clampHard(resource, hard, rootless)
		if asked > hard && asked != unix.RLIM_INFINITY {
			return nil, fmt.Errorf("ulimit %q: this process may give no more than %d: ask for less, or raise its own hard limit first, as root: %w", u, hard, define.ErrUnsupported)
		}
		l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: min(soft, hard), Hard: hard}
		// The last of a name wins.
		out = slices.DeleteFunc(out, func(o specs.POSIXRlimit) bool { return o.Type == l.Type })
		out = append(out, l)
	}
	return out, nil
}

func rlimitValue(s string) (uint64, error) {
	if s == "-1" || s == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// clampHard returns the highest hard limit up to want that this process may
// set. Raising one needs CAP_SYS_RESOURCE in the initial user namespace.
func clampHard(resource int, want uint64, rootless bool) uint64 {
	var have unix.Rlimit
	if err := unix.Prlimit(0, resource, nil, &have); err != nil {
		return want
	}
	if want > have.Max && (rootless || !mayRaiseRlimits()) {
		want = have.Max
	}
	if resource == unix.RLIMIT_NOFILE && want > have.Max {
		// Above fs.nr_open even root gets EPERM.
		if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
			if most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
				want = min(want, most)
			}
		}
	}
	return want
}

// mayRaiseRlimits reports CAP_SYS_RESOURCE in the effective set. Inside a
// user namespace that is not enough; drivers clamp again when they are
// refused.
func mayRaiseRlimits() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&head, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
