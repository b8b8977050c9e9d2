package cgroup

import (
	"fmt"
	"strconv"
)

// setting is a value to be written to a file of the group's.
type setting struct {
	file, value string
	// optional: not every kernel has the file, and nobody has asked for just
	// this value.
	optional bool
}

// need is what limits ask of one controller.
type need struct {
	controller string
	what       string // for messages
	old, new   []setting
}

// needs translates l, one need a controller.
func (l Limits) needs() []need {
	var list []need
	if l.Memory > 0 {
		list = append(list, l.memory())
	}
	if l.CPUShares != 0 || l.CPUQuota != 0 {
		list = append(list, l.cpu())
	}
	if l.CPUSetCPUs != "" || l.CPUSetMems != "" {
		n := need{controller: "cpuset", what: "set of CPUs"}
		if l.CPUSetCPUs == "" {
			n.what = "set of memory nodes"
		} else if l.CPUSetMems != "" {
			n.what = "set of CPUs or memory nodes"
		}
		for _, s := range []setting{{file: "cpuset.cpus", value: l.CPUSetCPUs}, {file: "cpuset.mems", value: l.CPUSetMems}} {
			if s.value != "" {
				n.old, n.new = append(n.old, s), append(n.new, s)
			}
		}
		list = append(list, n)
	}
	if l.PIDs > 0 {
		s := []setting{{file: "pids.max", value: strconv.FormatInt(l.PIDs, 10)}}
		list = append(list, need{controller: "pids", what: "limit of processes", old: s, new: s})
	}
	return list
}

func (l Limits) memory() need {
	n := need{controller: "memory", what: "memory limit"}
	both := l.MemorySwap // memory and swap, as version 1 counts
	if both == 0 && l.Memory < 1<<62 {
		both = 2 * l.Memory
	}
	limit := strconv.FormatInt(l.Memory, 10)
	n.old = []setting{{file: "memory.limit_in_bytes", value: limit},
		{file: "memory.memsw.limit_in_bytes", value: strconv.FormatInt(both, 10), optional: l.MemorySwap == 0}}
	swap := "max"
	if both >= 0 {
		swap = strconv.FormatInt(both-l.Memory, 10)
	}
	n.new = []setting{{file: "memory.max", value: limit}, {file: "memory.swap.max", value: swap, optional: l.MemorySwap == 0}}
	return n
}

func (l Limits) cpu() need {
	n := need{controller: "cpu", what: "CPU limit"}
	if l.CPUShares != 0 {
		n.old = append(n.old, setting{file: "cpu.shares", value: strconv.FormatUint(l.CPUShares, 10)})
		n.new = append(n.new, setting{file: "cpu.weight", value: strconv.FormatUint(weight(l.CPUShares), 10)})
	}
	if l.CPUQuota != 0 {
		period := l.CPUPeriod
		if period == 0 {
			period = 100000
		}
		// The period first: the quota is refused when it is too small for it.
		n.old = append(n.old, setting{file: "cpu.cfs_period_us", value: strconv.FormatUint(period, 10)},
			setting{file: "cpu.cfs_quota_us", value: strconv.FormatInt(l.CPUQuota, 10)})
		quota := "max"
		if l.CPUQuota > 0 {
			quota = strconv.FormatInt(l.CPUQuota, 10)
		}
		n.new = append(n.new, setting{file: "cpu.max", value: fmt.Sprintf("%s %d", quota, period)})
	}
	return n
}

// weight maps shares, 2 to 262144, to version 2's 1 to 10000, linearly as
// most runtimes do.
func weight(shares uint64) uint64 { return 1 + (shares-2)*9999/262142 }
