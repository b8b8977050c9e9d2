package chroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/define"
)

// Options are the driver's; the zero value is good.
type Options struct {
	// TempDir is where the step's small files lie for a moment; "" is
	// os.TempDir().
	TempDir string
	// NoMounts does without mounts even where they could be made.
	NoMounts bool
}

// grace is the time between SIGTERM and SIGKILL.
const grace = 10 * time.Second

type driver struct{ o Options }

// New returns the driver. It starts nothing before Run.
func New(o Options) (isolation.Driver, error) {
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	return &driver{o}, nil
}

// Name returns "chroot".
func (d *driver) Name() string { return "chroot" }

// Close has nothing to end.
func (d *driver) Close() error { return nil }

// Available asks for CAP_SYS_CHROOT, and for /proc, without which what a step
// leaves running could not be found.
func (d *driver) Available(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !hasCapability(unix.CAP_SYS_CHROOT) {
		return fmt.Errorf("chroot isolation, the least that steps are run with, needs CAP_SYS_CHROOT: "+
			"give it to the container around strata (--cap-add SYS_CHROOT), or let strata make user namespaces: %w", define.ErrUnsupported)
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return fmt.Errorf("chroot isolation needs /proc: %w: %w", err, define.ErrUnsupported)
	}
	return nil
}

func hasCapability(n uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[n/32].Effective&(1<<(n%32)) != 0
}

// Run executes the step.
func (d *driver) Run(ctx context.Context, s *isolation.Step) error {
	if err := s.Check(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	temp, err := os.MkdirTemp(d.o.TempDir, "strata-chroot-") // 0700
	if err != nil {
		return fmt.Errorf("chroot isolation: %w; set TMPDIR to a writable directory", err)
	}
	defer os.RemoveAll(temp) // no mount of ours is in it: those are in the init's namespace
	j, trees, err := d.prepare(s, temp)
	defer func() {
		for _, t := range trees {
			t.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("chroot isolation: %w", err)
	}
	return run(ctx, s, j, trees)
}

func cancelled(ctx context.Context) error {
	return fmt.Errorf("step cancelled: %w", context.Cause(ctx))
}

// prepare makes the job, and the descriptors from rootFd on: the root, a place
// for the console's socket, and the trees.
func (d *driver) prepare(s *isolation.Step, temp string) (*job, []*os.File, error) {
	spec := s.Spec.Spec
	j := &job{Spec: &spec, Terminal: s.Spec.Terminal != nil, Trees: map[string]int{}, KeepGroups: s.Spec.KeepGroups}
	linux := *spec.Linux
	spec.Linux = &linux
	if linux.Seccomp != nil {
		filter, err := seccomp.Compile(linux.Seccomp)
		if err != nil {
			return nil, nil, err
		}
		j.Filter, linux.Seccomp = filter, nil
	}
	var files []*os.File
	root, err := cloneTree(s.Root)
	switch {
	case d.o.NoMounts, !setsAttributes(), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSYS):
		if root != nil {
			root.Close()
		}
		if root, err = duplicate(s.Root); err != nil {
			return nil, nil, fmt.Errorf("step's root: %w", err)
		}
		files = append(files, root, nil)
		for _, m := range spec.Mounts {
			if isBind(m.Options, m.Type) && m.Destination != "/sys" {
				return nil, files, fmt.Errorf("volume %s: %s: copy it in: %w", m.Destination, noMounts(), define.ErrUnsupported)
			}
		}
		for _, p := range linux.MaskedPaths {
			// There is no /proc and no /sys at all.
			if !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/") {
				return nil, files, fmt.Errorf("masked %s: %s: leave it out of the image: %w", p, noMounts(), define.ErrUnsupported)
			}
		}
		j.Files = s.Spec.Files
		files, err = j.join(s.Spec, files)
		return j, files, err
	case err != nil:
		return nil, nil, fmt.Errorf("step's root: clone of the mount: %w", err)
	}
	j.Mounts = true
	files = append(files, root, nil)
	add := func(dest string, tree *os.File) {
		j.Trees[dest] = rootFd + len(files)
		files = append(files, tree)
	}
	if err := setAttributes(root, unix.MOUNT_ATTR_NODEV); err != nil {
		return nil, files, fmt.Errorf("step's root: %w", err)
	}
	if err := isolation.Executable(int(root.Fd())); err != nil {
		return nil, files, err
	}
	for _, m := range spec.Mounts {
		if !isBind(m.Options, m.Type) {
			continue
		}
		tree, err := cloneVolume(m, s.Spec.Trees[m.Destination])
		if err != nil {
			return nil, files, err
		}
		add(m.Destination, tree)
	}
	if err := fileTrees(temp, s.Spec.Files, add); err != nil {
		return nil, files, err
	}
	files, err = j.join(s.Spec, files)
	return j, files, err
}

// fileTrees makes mounts of the step's files, which lie in dir.
func fileTrees(dir string, files map[string][]byte, add func(string, *os.File)) error {
	n := 0
	for dest, content := range files {
		name := fmt.Sprintf("%s/%d", dir, n)
		n++
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
		// Not what the umask left.
		if err := os.Chmod(name, 0o644); err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
		tree, err := openTree(unix.AT_FDCWD, name, cloneFlags)
		if err == nil {
			err = setAttributes(tree, unix.MOUNT_ATTR_NODEV)
		}
		if err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
		add(path.Clean(dest), tree)
	}
	return nil
}

// run starts the monitor and follows it to its end. files are its descriptors
// from rootFd on; it fills in the console's.
func run(ctx context.Context, s *isolation.Step, j *job, files []*os.File) (err error) {
	control, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer control.Close()
	defer theirs.Close()
	extra := append([]*os.File{theirs}, files...)
	if j.Terminal {
		con, end, err := newConsole(s.Spec.Terminal.Console)
		if err != nil {
			return err
		}
		defer con.wait()
		defer end.Close()
		extra[consoleFd-controlFd] = end
	}
	limits, err := cgroup.New(s.Spec.Limits)
	if err != nil {
		return err
	}
	defer func() {
		var exit *isolation.ExitError
		if reason := limits.OutOfMemory(); reason != "" && errors.As(err, &exit) {
			exit.Reason = reason
		}
		if e := limits.Remove(); e != nil && err == nil {
			err = e
		}
	}()
	j.Limits = limits.Dirs()
	group := newGroup()
	defer func() {
		if e := group.remove(); e != nil && err == nil {
			err = e
		}
	}()
	cmd, err := startMonitor(s, extra, group)
	if err != nil {
		return err
	}
	if cmd.SysProcAttr.UseCgroupFD {
		j.Group = group.path
	}
	theirs.Close()
	if j.Terminal {
		extra[consoleFd-controlFd].Close()
	}
	// The monitor reads before it does anything else. Should it be dead, there
	// is no answer either.
	_ = writeMessage(control, j)
	result := make(chan *report, 1)
	go func() {
		r := &report{}
		if err := readMessage(control, r); err != nil {
			r.Error = fmt.Sprintf("monitor: %v", err)
		}
		result <- r
	}()
	asked := false
	select {
	case r := <-result:
		return finish(cmd, r)
	case <-ctx.Done():
		asked = true
	}
	if !errors.Is(context.Cause(ctx), isolation.ErrKillNow) {
		tell(control, 'T')
		select {
		case r := <-result:
			result <- r
		case <-time.After(grace):
		}
	}
	tell(control, 'K')
	err = finish(cmd, <-result)
	var exit *isolation.ExitError
	if asked && (err == nil || errors.As(err, &exit)) {
		return cancelled(ctx)
	}
	return errors.Join(cancelled(ctx), err)
}

// tell sends an order to the monitor, which may just have ended.
func tell(control *os.File, order byte) { _, _ = control.Write([]byte{order}) }

// finish waits for the monitor.
func finish(cmd *exec.Cmd, r *report) error {
	werr := cmd.Wait()
	if err := r.err(); err != nil && !strings.HasPrefix(r.Error, "monitor: ") {
		return err
	} else if err != nil && werr != nil {
		return fmt.Errorf("%w (%w)", err, werr)
	} else if err != nil {
		return err
	}
	return nil
}

// startMonitor starts this program as the monitor, in a group where there is one.
func startMonitor(s *isolation.Step, extra []*os.File, in *group) (*exec.Cmd, error) {
	start := func(in *group) (*exec.Cmd, error) {
		cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{monitorName}, Env: []string{}, ExtraFiles: extra}
		if s.Spec.Terminal == nil {
			cmd.Stdin, cmd.Stdout, cmd.Stderr = file(s.Stdin), file(s.Stdout), file(s.Stderr)
		}
		// A session of its own: ^C at our terminal is the caller's to handle.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if in != nil {
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(in.dir.Fd())
		}
		return cmd, cmd.Start()
	}
	cmd, err := start(in)
	if err != nil && in != nil {
		cmd, err = start(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("chroot isolation: start of the monitor: %w", err)
	}
	return cmd, nil
}
