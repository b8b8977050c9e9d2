package cgroup

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Limits bound what a group of processes may use of the machine, through its
// control group (cgroups(7)). The zero value is no limit, and no control group
// is made then.
type Limits struct {
	// Memory and MemorySwap are bytes, 0 is no limit. MemorySwap is memory and
	// swap together, -1 as much swap as there is; 0 with a Memory is twice
	// Memory, where the host accounts for swap.
	Memory, MemorySwap int64
	// CPUShares is the weight against other groups, 2 to 262144 (1024 is the
	// usual one).
	CPUShares uint64
	// CPUQuota is so much of CPU time in each CPUPeriod, both microseconds;
	// a period of 0 is 100 ms.
	CPUQuota  int64
	CPUPeriod uint64
	// CPUSetCPUs and CPUSetMems are lists such as 0-2,4.
	CPUSetCPUs, CPUSetMems string
	// PIDs is how many processes and threads there may be; 0 and -1 are as
	// many as the host lets.
	PIDs int64
	// Parent is the control group in which one is made, below the root of the
	// hierarchy, or a systemd slice such as build.slice; "" is this process's.
	Parent string
	// Manager is who makes the group that the steps' groups are in, one of the
	// constants; it is no limit itself.
	Manager string
}

// IsZero reports that no control group is needed.
func (l Limits) IsZero() bool {
	l.Manager = ""
	return l == Limits{}
}

// Check reports a value that no host could apply; the error wraps
// define.ErrInvalid.
func (l Limits) Check() error {
	bad := func(what, format string, args ...any) error {
		return fmt.Errorf("%s: %s: %w", what, fmt.Sprintf(format, args...), define.ErrInvalid)
	}
	switch {
	case l.Memory < 0:
		return bad("memory limit", "%d: want bytes", l.Memory)
	case l.MemorySwap < -1:
		return bad("limit of memory and swap", "%d: want bytes, or -1 for no limit", l.MemorySwap)
	case l.MemorySwap != 0 && l.Memory == 0:
		return bad("limit of memory and swap", "%d: needs a memory limit beside it", l.MemorySwap)
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return bad("limit of memory and swap", "%d is less than the memory limit, %d: it counts both", l.MemorySwap, l.Memory)
	case l.CPUShares != 0 && (l.CPUShares < 2 || l.CPUShares > 262144):
		return bad("CPU shares", "%d: want 2 to 262144", l.CPUShares)
	case l.CPUPeriod != 0 && l.CPUQuota == 0:
		return bad("CPU period", "%d: needs a CPU quota beside it", l.CPUPeriod)
	case l.CPUQuota < -1 || l.CPUQuota > 0 && l.CPUQuota < 1000:
		return bad("CPU quota", "%d: want 1000 microseconds or more, or -1 for no limit", l.CPUQuota)
	case l.CPUPeriod != 0 && (l.CPUPeriod < 1000 || l.CPUPeriod > 1000000):
		return bad("CPU period", "%d: want 1000 to 1000000 microseconds", l.CPUPeriod)
	case l.PIDs < -1:
		return bad("limit of processes", "%d: want a number, or -1 for no limit", l.PIDs)
	}
	if err := checkSet(l.CPUSetCPUs); err != nil {
		return bad("set of CPUs", "%q: %v", l.CPUSetCPUs, err)
	}
	if err := checkSet(l.CPUSetMems); err != nil {
		return bad("set of memory nodes", "%q: %v", l.CPUSetMems, err)
	}
	if err := CheckManager(l.Manager); err != nil {
		return err
	}
	return checkParent(l.Parent)
}

// checkSet accepts the kernel's list format (cpuset(7)).
func checkSet(s string) error {
	if s == "" {
		return nil
	}
	for item := range strings.SplitSeq(s, ",") {
		low, high, span := strings.Cut(item, "-")
		a, err := strconv.ParseUint(low, 10, 16)
		b := a
		if err == nil && span {
			b, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || b < a {
			return fmt.Errorf("want a list such as 0-2,4")
		}
	}
	return nil
}

func checkParent(p string) error {
	if strings.ContainsAny(p, "\x00\n") || len(p) > 1024 {
		return fmt.Errorf("parent control group %q: want a path such as /builds: %w", p, define.ErrInvalid)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return fmt.Errorf("parent control group %q: cannot hold \"..\": %w", p, define.ErrInvalid)
		}
	}
	if strings.HasSuffix(p, ".slice") && strings.Contains(strings.TrimPrefix(p, "/"), "/") {
		return fmt.Errorf("parent control group %q: want a slice's name alone, such as %s: %w", p, path.Base(p), define.ErrInvalid)
	}
	return nil
}
