package doctor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
)

// world is what the doctor looks at and tries things with; tests make up
// others.
type world struct {
	root       string // before the names of files of /proc, /sys and /etc
	clone      func(flags uintptr) error
	tryOverlay func(dir string, userxattr bool) error
	lowerPlus  func(dir string) error
	tryTun     func() error
	systemd    func() error // nil: systemd would make a scope
	// tryNetwork makes a private network of steps and says of what kind it was.
	tryNetwork func(ctx context.Context, rootless bool) (kind string, err error)
	lookPath   func(name string) (string, error)
	statfs     func(path string, st *unix.Statfs_t) error
	access     func(path string, mode uint32) error
}

// thisHost is the real one.
func thisHost() world {
	return world{clone: clone, tryOverlay: tryOverlay, lowerPlus: lowerPlus, tryTun: tryTun, systemd: cgroup.AskSystemd, tryNetwork: tryNetwork,
		lookPath: exec.LookPath, statfs: unix.Statfs, access: unix.Access}
}

func (w *world) path(file string) string { return filepath.Join(w.root, file) }

func (w *world) read(file string) string {
	b, err := os.ReadFile(w.path(file))
	if err != nil {
		return ""
	}
	return string(b)
}

// first is the first line of a small file, "" when it cannot be read.
func (w *world) first(file string) string {
	line, _, _ := strings.Cut(w.read(file), "\n")
	return strings.TrimSpace(line)
}

// status is a field of /proc/self/status (proc_pid_status(5)).
func (w *world) status(field string) string {
	for line := range strings.Lines(w.read("/proc/self/status")) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fileSystem names the type of the file system at path.
func (w *world) fileSystem(path string) string {
	var st unix.Statfs_t
	if w.statfs(path, &st) != nil {
		return "unknown"
	}
	return fileSystemName(int64(uint32(st.Type)))
}
