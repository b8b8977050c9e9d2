package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/tests/testenv"
	"golang.org/x/sys/unix"
)

// session is one call of bench.
type session struct {
	o       options
	work    string // everything lies here
	top     string // work, or the directory that it is mounted in
	cleanup []func() error
	base    string // the base image's layout
	busybox string
	// baseDigest is that of the base image's manifest.
	baseDigest digest.Digest
	tools      []tool
	dirs       int // made so far
	runs       int // begun so far
}

func (s *session) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// lane is one tool's part of a row.
type lane struct {
	tool   tool
	dir    string
	runs   int // of this store
	server *registrytest.Registry
	result result
}

// row times a row with all tools, in turns.
func (s *session) row(ctx context.Context, r row) (results []result, err error) {
	contextDir, err := s.newDir("context")
	if err != nil {
		return nil, err
	}
	s.say("%s", r.name)
	if err := r.context(contextDir); err != nil {
		return nil, fmt.Errorf("make the context: %w", err)
	}
	var lanes []*lane
	for _, t := range s.tools {
		l := &lane{tool: t, result: result{Row: r.name, Tool: t.name()}}
		lanes = append(lanes, l)
		if cmd, err := t.command(r, place{dir: s.work}); err != nil || cmd == nil {
			continue
		}
		defer func() { t.stop(l.dir) }()
		if err := s.newStore(ctx, r, l, contextDir); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name(), err)
		}
		defer l.close()
	}
	// Run 0 warms up: the caches of the kernel, and of the tool in cached rows.
	// After the last comes the one that is counted.
	for run := 0; run <= s.o.runs+1; run++ {
		for _, l := range lanes {
			if err := s.run(ctx, r, l, contextDir, run); err != nil {
				return nil, fmt.Errorf("%s: %w", l.tool.name(), err)
			}
		}
	}
	for _, l := range lanes {
		if len(l.result.Seconds) > 0 {
			results = append(results, l.result.summed())
		}
	}
	return results, nil
}

// newDir makes a directory that stays until the end.
func (s *session) newDir(name string) (string, error) {
	s.dirs++
	dir := filepath.Join(s.work, fmt.Sprintf("%s-%d", name, s.dirs))
	return dir, os.Mkdir(dir, 0o755)
}

// newStore makes what the tool's runs begin with.
func (s *session) newStore(ctx context.Context, r row, l *lane, contextDir string) (err error) {
	if l.dir, err = s.newDir(l.tool.name()); err != nil {
		return err
	}
	l.runs = 0
	if err := l.tool.prepare(ctx, l.dir); err != nil {
		return err
	}
	l.close()
	if r.registry {
		if l.server, err = registrytest.New(registrytest.Options{}); err != nil {
			return err
		}
	}
	once := l.tool.script(r.once, s.place(l, contextDir))
	if once == nil {
		return nil
	}
	if r.store != nil {
		if err := r.store(l.dir); err != nil {
			return err
		}
	}
	if r.once == "" {
		return nil
	}
	_, err = output(ctx, once)
	return err
}

func (l *lane) close() {
	if l.server != nil {
		l.server.Close()
		l.server = nil
	}
}

func (s *session) place(l *lane, contextDir string) place {
	s.runs++
	p := place{dir: l.dir, context: contextDir, n: s.runs, run: l.runs}
	if l.server != nil {
		p.registry = l.server.Host()
	}
	return p
}

func (s *session) run(ctx context.Context, r row, l *lane, contextDir string, run int) error {
	counted := run > s.o.runs
	if l.dir == "" || counted && !s.counts(l) {
		return nil // not for this tool
	}
	if r.fresh && run > 0 {
		// Few files, but large ones: these are not kept.
		l.tool.stop(l.dir)
		if err := testenv.RemoveStore(l.dir); err != nil {
			return err
		}
		if err := s.newStore(ctx, r, l, contextDir); err != nil {
			return err
		}
	}
	if r.change != nil {
		// Another content for each tool and run, as for a user who edits.
		if err := r.change(contextDir, run*len(s.tools)+l.index(s.tools)); err != nil {
			return err
		}
	}
	p := s.place(l, contextDir)
	if before := l.tool.script(r.before, p); before != nil && r.before != "" {
		if _, err := output(ctx, before); err != nil {
			return err
		}
	}
	cmd, err := l.tool.command(r, p)
	if err != nil || cmd == nil {
		return err
	}
	l.runs++
	if counted {
		l.result.Calls, err = countCalls(ctx, cmd, s.work)
		return err
	}
	m, err := s.measured(ctx, cmd)
	if err != nil {
		return err
	}
	if run == 0 {
		return nil
	}
	s.say("  %-10s %8.3f s  %4d MiB", l.tool.name(), m.Seconds, m.RSS>>20)
	if !isAlone(l.tool) {
		m.RSS, m.CPU = 0, 0
	}
	l.result.add(m)
	return nil
}

// measured runs the command between two syncs; what is written up to the
// second is the command's, as far as the disk is ours alone.
func (s *session) measured(ctx context.Context, cmd *exec.Cmd) (measurement, error) {
	syncDir(s.work)
	before := written(s.work)
	m, err := measure(ctx, cmd)
	if err == nil && before >= 0 {
		syncDir(s.work)
		m.Written = written(s.work) - before
	}
	return m, err
}

func (l *lane) index(tools []tool) int {
	for i, t := range tools {
		if t.name() == l.tool.name() {
			return i
		}
	}
	return -1
}

// syncDir writes what is dirty, so that no run pays for the one before.
func syncDir(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Syncfs(int(f.Fd())) // a courtesy
}

// describe names the machine and the tools.
func (s *session) describe(ctx context.Context) *report {
	r := &report{Machine: machine(s.work), Runs: s.o.runs, Versions: map[string]string{}}
	for _, t := range s.tools {
		r.Versions[t.name()] = t.version(ctx)
		r.tools = append(r.tools, t.name())
	}
	return r
}

// machine is kernel, processors and file system in one line.
func machine(dir string) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	model := "unknown processor"
	processors := 0
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			switch key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) {
			case "processor":
				processors++
			case "model name":
				model = strings.TrimSpace(value)
			}
		}
	}
	return fmt.Sprintf("%d x %s, Linux %s, %s", processors, model, unix.ByteSliceToString(u.Release[:]), fileSystem(dir))
}

func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err.Error()
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
