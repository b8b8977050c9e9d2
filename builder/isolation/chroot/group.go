package chroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is a version 2 control group of the step's, without limits: what is
// left in it when the monitor has gone (because a step killed the monitor) is
// killed with one write. nil where none can be made.
type group struct {
	dir  *os.File
	path string
}

// newGroup makes a group below our own.
func newGroup() *group {
	top := ""
	for _, p := range [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(p, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			top = p
		}
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if top == "" || err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		path, err := os.MkdirTemp(filepath.Join(top, own), "strata-chroot-")
		if err != nil {
			return nil
		}
		dir, err := os.Open(path)
		if err == nil {
			// Linux 5.14.
			if _, err = os.Stat(filepath.Join(path, "cgroup.kill")); err == nil {
				return &group{dir, path}
			}
			dir.Close()
		}
		_ = os.Remove(path) // empty
		return nil
	}
	return nil
}

// remove kills what is in the group and removes it.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	defer g.dir.Close()
	err := os.Remove(g.path)
	for pause := time.Millisecond; errors.Is(err, unix.EBUSY) && pause < time.Second; pause *= 2 {
		if e := os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0); e != nil {
			return fmt.Errorf("chroot isolation: end of the step's processes: %w", e)
		}
		time.Sleep(pause)
		err = os.Remove(g.path)
	}
	if err != nil {
		return fmt.Errorf("chroot isolation: the step's cgroup is left: %w", err)
	}
	return nil
}

// leaveGroup removes the group that this process, alone by now, is in.
func leaveGroup(path string) {
	if path == "" {
		return
	}
	// Nobody is left to hear of an error.
	_ = os.WriteFile(filepath.Join(filepath.Dir(path), "cgroup.procs"), []byte("0"), 0)
	_ = os.Remove(path)
}
