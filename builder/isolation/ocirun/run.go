package ocirun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/cgroup"
	"github.com/stratabuild/strata/builder/isolation"
)

// grace is the time between SIGTERM and SIGKILL, and what a runtime that
// hangs is given.
const grace = 10 * time.Second

// Run executes the step.
func (d *driver) Run(ctx context.Context, s *isolation.Step) error {
	if err := s.Check(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	r, err := d.choose(ctx, false)
	if err != nil {
		return err
	}
	return r.run(ctx, s)
}

func cancelled(ctx context.Context) error {
	return fmt.Errorf("step cancelled: %w", context.Cause(ctx))
}

func (r *oci) run(ctx context.Context, s *isolation.Step) (err error) {
	if err := r.checkWishes(s.Spec); err != nil {
		return err
	}
	if err := checkCwd(s); err != nil {
		return err
	}
	if err := checkMountPoints(s); err != nil {
		return err
	}
	if err := checkVolumes(s); err != nil {
		return err
	}
	if err := checkSize(s); err != nil {
		return err
	}
	w, err := newWork(r.o.TempDir)
	if err != nil {
		return err
	}
	defer func() {
		if e := errors.Join(w.keepLog(r.o.log), w.remove()); e != nil && err == nil {
			err = e
		}
	}()
	if r.o.StateDir != "" {
		if err := os.MkdirAll(r.o.StateDir, 0o700); err != nil {
			return fmt.Errorf("state directory of the OCI runtime: %w", err)
		}
	}
	var t *trees
	defer func() {
		if t != nil {
			t.close()
		}
	}()
	prepare := func() (err error) {
		if t, err = cloneTrees(s, w); err == nil && s.Spec.Limits.IsZero() && !wantsLimits(&s.Spec.Spec) && !r.deniesDevices(&s.Spec.Spec) {
			t.cgroup = cloneUnified()
		}
		if err == nil && r.userns {
			err = t.cloneDevices()
		}
		return err
	}
	return inPrivateMounts(prepare, func() error {
		sources, err := t.attach(w)
		if err != nil {
			return err
		}
		return r.execute(ctx, s, w, r.config(s.Spec, sources, w.id()))
	})
}

// execute runs the step to its end.
func (r *oci) execute(ctx context.Context, s *isolation.Step, w *work, c *specs.Spec) (err error) {
	args := []string{"run", "--bundle", w.dir, "--pid-file", w.path("pid")}
	cmd := r.command(w, c)
	switch {
	case s.Spec.Terminal == nil:
		cmd.Stdin, cmd.Stdout, cmd.Stderr = file(s.Stdin), file(s.Stdout), file(s.Stderr)
	case r.family() == "crun":
		con, err := listenConsole(w)
		if err != nil {
			return err
		}
		con.serve(s.Spec.Terminal.Console)
		// Last: reading ends when the last process that has the terminal does.
		defer con.close()
		args = append(args, "--console-socket", consoleName)
	default:
		done, err := ownTerminal(cmd, s.Spec.Terminal)
		if err != nil {
			return err
		}
		defer done()
	}
	if err := w.writeConfig(c); err != nil {
		return err
	}
	cmd.Args = append(cmd.Args, append(args, w.id())...)
	defer func() {
		if e := r.cleanUp(w, c); e != nil && err == nil {
			err = e
		}
	}()
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	unignoreSignals()
	kills := cgroup.HostOOMKills()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("OCI runtime %s: %w", r.path, err)
	}
	st, err := await(ctx, w, cmd)
	if err != nil {
		return err
	}
	err = refusedLimits(s.Spec, r.outcome(s, w, st))
	var exit *isolation.ExitError
	if errors.As(err, &exit) && exit.Code == 128+int(syscall.SIGKILL) && exit.Reason == "" && cgroup.HostOOMKills() != kills {
		exit.Reason = s.Spec.Limits.OutOfMemory(0)
	}
	return err
}

// file avoids the interface that is not nil though the pointer is.
func file(f *os.File) io.ReadWriter {
	if f == nil {
		return nil
	}
	return f
}

// command prepares a call of the runtime. It gets an environment of its own:
// what this process was started with is no business of the step's.
func (r *oci) command(w *work, c *specs.Spec, args ...string) *exec.Cmd {
	cmd := exec.Command(r.path, append(r.flags(w, c), args...)...)
	cmd.Dir = w.dir
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	// A group of its own, so that ^C at our terminal is ours alone to handle,
	// and a runtime that hangs can be ended together with what it has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// await waits for the runtime, which ends with the step, and ends the step
// when ctx ends.
func await(ctx context.Context, w *work, cmd *exec.Cmd) (*os.ProcessState, error) {
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the state says it all
		close(ended)
	}()
	select {
	case <-ended:
		return cmd.ProcessState, nil
	case <-ctx.Done():
	}
	kill := errors.Is(context.Cause(ctx), isolation.ErrKillNow)
	asked := false
	deadline := time.After(grace)
	for poll := time.Millisecond; ; poll = min(2*poll, 50*time.Millisecond) {
		// The runtime is killed last: in the middle of its work it would leave
		// pieces. As long as it lives the pid is not another process's.
		if p := w.process(); p != nil && !asked {
			select {
			case <-ended:
			default:
				if kill || !handlesTerm(p.Pid) {
					_ = p.Kill() // it may just have ended
				} else {
					_ = p.Signal(syscall.SIGTERM)
				}
				asked = true
			}
			_ = p.Release()
		}
		next := (<-chan time.Time)(nil)
		if !asked {
			next = time.After(poll)
		}
		select {
		case <-ended:
			return nil, cancelled(ctx)
		case <-next:
		case <-deadline:
			if p := w.process(); p != nil {
				_ = p.Kill()
				select {
				case <-ended:
					return nil, cancelled(ctx)
				case <-time.After(time.Second):
				}
			}
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			<-ended
			return nil, cancelled(ctx)
		}
	}
}

// process returns the step's first process, or nil when it is not known yet.
func (w *work) process() *os.Process {
	b, err := os.ReadFile(w.path("pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 2 {
		return nil
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil
	}
	return p
}

// cleanUp deletes what a runtime that failed or was killed has left. One that
// ended as it should has deleted the container itself.
func (r *oci) cleanUp(w *work, c *specs.Spec) error {
	if !w.hasState(r.o.StateDir) {
		return nil
	}
	cmd := r.command(w, c, "delete", "--force", w.id())
	timer := time.AfterFunc(grace, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil && w.hasState(r.o.StateDir) {
		return fmt.Errorf("OCI runtime %s: delete: %s: %w", r.name(), w.complaint(), err)
	}
	return nil
}

// hasState reports whether the runtime still knows the container.
func (w *work) hasState(stateDir string) bool {
	if stateDir == "" {
		stateDir = w.path("state")
	}
	_, err := os.Lstat(filepath.Join(stateDir, w.id()))
	return err == nil
}

// handlesTerm reports whether a process has a handler for SIGTERM. Process 1
// of a pid namespace ignores the signal otherwise.
func handlesTerm(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return true // not known: ask
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			caught, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err != nil || caught&(1<<(unix.SIGTERM-1)) != 0
		}
	}
	return true
}
