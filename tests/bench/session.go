package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

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
	left       []string // tools that are left out, and why
	dirs       int      // made so far
	disks      int      // too
	runs       int      // begun so far
}

func (s *session) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// lane is one tool's part of a row.
type lane struct {
	tool    tool
	index   int
	dir     string
	context string
	runs    int // of this store
	server  *registrytest.Registry
	result  result
	err     error
}

// phase is what a run is for.
type phase int

const (
	warmUp  phase = iota // the caches of the kernel, and of the tool in cached rows
	timed                // the table's
	sampled              // one more, whose memory is looked at all the time
	counted              // one more, whose system calls are counted
)

// phases are the runs of a row.
func (s *session) phases() []phase {
	list := []phase{warmUp}
	for range s.o.runs {
		list = append(list, timed)
	}
	if s.o.memory {
		list = append(list, sampled)
	}
	if s.o.calls {
		list = append(list, counted)
	}
	return list
}

// A tool of which a run takes longer than slowRun is timed slowRuns times at
// most.
const (
	slowRun  = 30 // seconds
	slowRuns = 3
)

// row times a row with all tools, in turns. A tool that fails has no time in
// it, and the others go on.
func (s *session) row(ctx context.Context, r row) (results []result, err error) {
	if err := s.freshWork(ctx); err != nil {
		return nil, err
	}
	contextDir, err := s.newDir("context")
	if err != nil {
		return nil, err
	}
	s.say("%s", r.name)
	if err := r.context(contextDir); err != nil {
		return nil, fmt.Errorf("make the context: %w", err)
	}
	if r.cached || r.change != nil {
		// Else all of it would count as just changed, and be read again.
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r.move.packed("yardstick") {
		if err := pack(contextDir, contextDir+".image", r.move); err != nil {
			return nil, fmt.Errorf("make the image: %w", err)
		}
	}
	var lanes []*lane
	for i, t := range s.tools {
		l := &lane{tool: t, index: i, context: contextDir, result: result{Row: r.name, Tool: t.name()}}
		lanes = append(lanes, l)
		if _, l.err = command(t, r, place{dir: s.work}); l.err != nil {
			continue
		}
		defer func() { t.stop(l.dir) }()
		defer l.close()
		l.err = s.newStore(ctx, r, l)
	}
	for run, phase := range s.phases() {
		// Each time another goes first: nobody has always the same before it.
		for i := range lanes {
			l := lanes[(i+run)%len(lanes)]
			if l.err == nil {
				l.err = s.run(ctx, r, l, run, phase)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	for _, l := range lanes {
		var why absent
		switch {
		case errors.As(l.err, &why):
			l.result = result{Row: r.name, Tool: l.tool.name(), Missing: string(why)}
		case l.err != nil:
			s.say("  %s fails: %v", l.tool.name(), l.err)
			l.result = result{Row: r.name, Tool: l.tool.name(), Missing: "fails: " + ending(l.err.Error(), 200)}
			if !isPeer(l.tool) {
				err = errors.Join(err, fmt.Errorf("%s: %w", l.tool.name(), l.err))
			}
		}
		results = append(results, l.result.summed())
	}
	return results, err
}

// isPeer reports a tool that is not ours, whose failures are not either.
func isPeer(t tool) bool {
	switch t.name() {
	case "strata", userTool, "yardstick":
		return false
	}
	return true
}

// newDir makes a directory that stays until the end.
func (s *session) newDir(name string) (string, error) {
	s.dirs++
	dir := filepath.Join(s.work, fmt.Sprintf("%s-%d", name, s.dirs))
	return dir, os.Mkdir(dir, 0o755)
}

// tempDir is where a tool has its temporary files, on the same disk as its
// store: what is written there counts.
func tempDir(dir string) string { return filepath.Join(dir, "tmp") }

// newStore makes what the tool's runs begin with.
func (s *session) newStore(ctx context.Context, r row, l *lane) (err error) {
	if l.dir, err = s.newDir(l.tool.name()); err != nil {
		return err
	}
	l.runs = 0
	if err := os.Mkdir(tempDir(l.dir), 0o700); err != nil {
		return err
	}
	if err := l.tool.prepare(ctx, l.dir); err != nil {
		return err
	}
	l.close()
	if r.registry {
		if l.server, err = registrytest.New(registrytest.Options{}); err != nil {
			return err
		}
		if r.move.packed(l.tool.name()) {
			if err := serve(l.server, l.context+".image"); err != nil {
				return err
			}
		}
	}
	if _, ok := l.tool.(yardstick); ok {
		return nil
	}
	if r.store != nil {
		if err := r.store(l.dir); err != nil {
			return err
		}
		if err := l.tool.own(l.dir); err != nil {
			return err
		}
	}
	p := s.place(l)
	if r.built {
		cmd, err := l.tool.command(row{cached: true}, p)
		if err != nil {
			return err
		}
		if _, err := output(ctx, cmd); err != nil {
			return err
		}
	}
	return s.prelude(ctx, l, r.once, p)
}

// prelude runs a script of the row that is not timed.
func (s *session) prelude(ctx context.Context, l *lane, text string, p place) error {
	cmd := l.tool.script(text, p)
	if cmd == nil || text == "" {
		return nil
	}
	_, err := output(ctx, cmd)
	return err
}

func (l *lane) close() {
	if l.server != nil {
		l.server.Close()
		l.server = nil
	}
}

func (s *session) place(l *lane) place {
	s.runs++
	p := place{dir: l.dir, context: l.context, image: l.context + ".image", n: s.runs, run: l.runs}
	if l.server != nil {
		p.registry = l.server.Host()
	}
	return p
}

func (s *session) run(ctx context.Context, r row, l *lane, run int, phase phase) error {
	switch {
	case phase == counted && (r.init || !s.counts(l)),
		phase == sampled && r.init,
		phase == timed && len(l.result.Seconds) >= slowRuns && median(l.result.Seconds) > slowRun:
		return nil
	}
	if r.fresh && run > 0 {
		l.tool.stop(l.dir)
		if r.bulky { // few files, but large ones: these are not kept
			if err := testenv.RemoveStore(l.dir); err != nil {
				return err
			}
		}
		if err := s.newStore(ctx, r, l); err != nil {
			return err
		}
	}
	if r.change != nil {
		// Another content for each tool and run, as for a user who edits.
		if err := r.change(l.context, run*len(s.tools)+l.index); err != nil {
			return err
		}
	}
	p := s.place(l)
	if err := s.prelude(ctx, l, r.before, p); err != nil {
		return err
	}
	if r.settled {
		if err := waitSettled(ctx, l.dir); err != nil {
			return err
		}
	}
	cmd, err := command(l.tool, r, p)
	if err != nil {
		return err
	}
	l.runs++
	if phase == counted {
		l.result.Calls, err = countCalls(ctx, cmd, s.work)
		return err
	}
	m, err := s.measured(ctx, cmd, order{Sample: phase == sampled, Daemon: l.tool.daemon(l.dir), Init: r.init})
	if err != nil {
		return err
	}
	switch phase {
	case timed:
		s.say("  %-10s %s", l.tool.name(), duration(m.Seconds))
		if !isAlone(l.tool) {
			m.RSS, m.CPU = 0, 0
		}
		l.result.add(m)
	case sampled:
		l.result.Memory = m.Memory
	}
	return nil
}

// measured runs the command between two syncs; what is written up to the
// second is the command's, as far as the disk is ours alone. Elsewhere it is
// what its processes made dirty, which is not known of a daemon.
func (s *session) measured(ctx context.Context, cmd *exec.Cmd, o order) (measurement, error) {
	if !s.o.hasty {
		syncDir(s.work)
	}
	before := written(s.work)
	m, err := measure(ctx, cmd, o)
	switch {
	case err != nil:
	case before >= 0:
		syncDir(s.work)
		m.Written = written(s.work) - before
	case o.Daemon != 0:
		m.Written = -1
	}
	return m, err
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
	r := &report{Machine: machine(s.work), Runs: s.o.runs, Versions: map[string]string{}, Left: s.left}
	r.Disk = "bytes that went to a disk of bench's own, its journal included"
	if written(s.work) < 0 {
		r.Disk = "bytes that the processes made dirty (/proc/self/io)"
	}
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
