package cli

import (
	"os"
	"strconv"
	"strings"
)

// umask returns the process's file mode creation mask without changing it
// for a moment, as umask(2) would (proc_pid_status(5), Linux 4.7).
func umask() os.FileMode {
	const otherwise = 0o022
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return otherwise
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32)
			if err != nil {
				return otherwise
			}
			return os.FileMode(n) & os.ModePerm
		}
	}
	return otherwise
}
