package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/tests/testenv"
)

// counts reports whether system calls of this tool can be counted. Under
// strace set-uid programs lose their privileges, hence only as root.
func (s *session) counts(l *lane) bool {
	if _, other := l.tool.(unprivileged); other || !s.o.calls || !isAlone(l.tool) || testenv.Root() != nil {
		return false
	}
	_, err := exec.LookPath("strace")
	return err == nil
}

func isAlone(t tool) bool {
	switch t.(type) {
	case builder, yardstick, unprivileged:
		return true
	}
	return false
}

// countCalls runs the command under strace and returns how many system calls
// it and its descendants made.
func countCalls(ctx context.Context, cmd *exec.Cmd, dir string) (int64, error) {
	file := filepath.Join(dir, "calls")
	c := *cmd
	var err error
	if c.Path, err = exec.LookPath("strace"); err != nil {
		return 0, err
	}
	c.Args = slices.Concat([]string{"strace", "-f", "-c", "-o", file, cmd.Path}, cmd.Args[1:])
	if _, err := output(ctx, &c); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return totalCalls(string(b))
}

// totalCalls sums up strace's table, whose last line differs between versions:
//
//	% time     seconds  usecs/call     calls    errors syscall
//	------ ----------- ----------- --------- --------- ----------------
//	 42.30    0.994567         960      1036        63 futex
func totalCalls(table string) (sum int64, err error) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.ParseInt(f[3], 10, 64); err == nil {
			sum += n
		}
	}
	if sum == 0 {
		return 0, fmt.Errorf("no calls in what strace wrote: %s", tail(table))
	}
	return sum, nil
}
