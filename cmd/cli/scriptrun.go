package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/reaper"
	"golang.org/x/sys/unix"
)

func (f *scriptFlags) execute(a *app, cmd *cobra.Command, args []string) error {
	p, err := f.plan(args)
	if err != nil {
		return err
	}
	if err := a.enter(true); err != nil {
		return err
	}
	for _, n := range a.namespaces.Notes {
		_, _ = fmt.Fprintln(a.std.Err, n)
	}
	ctx := cmd.Context()
	s, err := a.beginScript(ctx)
	if err != nil {
		return err
	}
	s.Outer = a.getenv(transactionVariable)
	end := func(discard bool) ([]string, error) { return a.endScript(context.WithoutCancel(ctx), s, discard) }
	env, err := a.scriptEnv(cmd, s, p, f.alias)
	if err != nil {
		_, endErr := end(true)
		return errors.Join(err, endErr)
	}
	status, err := a.runScript(ctx, p, env)
	// Even a script that ignores the signal has been interrupted.
	if cause := context.Cause(ctx); err == nil && cause != nil {
		err = cause
	}
	if err == nil && status == 0 {
		_, err = end(false)
		return err
	}
	names, endErr := end(!f.keep)
	for _, n := range names {
		if f.keep {
			a.warn(fmt.Sprintf("container %s is kept; look into it with strata debug %s, remove it with strata rm %s", n, n, n))
		}
	}
	if err == nil {
		err = &isolation.ExitError{Code: status, Reason: scriptFailure(p.title, names, f.keep)}
	}
	return errors.Join(err, endErr)
}

func scriptFailure(title string, names []string, kept bool) string {
	switch {
	case kept || len(names) == 0:
		return title
	case len(names) == 1:
		return title + "; its container " + names[0] + " is removed, --keep would keep it"
	}
	return title + "; its containers " + strings.Join(names, ", ") + " are removed, --keep would keep them"
}

// beginScript opens the store for a moment only: the script may take long.
func (a *app) beginScript(ctx context.Context) (*builder.Script, error) {
	e, err := a.openEngine(ctx, builder.Options{Store: a.global.store()})
	if err != nil {
		return nil, err
	}
	if _, err := e.SweepScripts(ctx); err != nil {
		a.warn("what a script that was killed has left cannot be removed: " + err.Error())
	}
	s, err := e.BeginScript(ctx)
	return s, errors.Join(err, a.closeEngine())
}

func (a *app) endScript(ctx context.Context, s *builder.Script, discard bool) ([]string, error) {
	e, err := a.openEngine(ctx, builder.Options{Store: a.global.store()})
	if err != nil {
		return nil, err
	}
	names, err := e.EndScript(ctx, s, discard)
	return names, errors.Join(err, a.closeEngine())
}

// scriptEnv is the script's environment. PATH leads to this very program.
func (a *app) scriptEnv(cmd *cobra.Command, s *builder.Script, p *scriptPlan, alias bool) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	names := []string{"strata"}
	if alias {
		names = append(names, "buildah")
	}
	for _, n := range names {
		if err := os.Symlink(self, filepath.Join(s.Dir, n)); err != nil {
			return nil, fmt.Errorf("beginning the script: %w", err)
		}
	}
	env := append(a.insideEnv(cmd), p.env...)
	return append(env, "PATH="+s.Dir+string(os.PathListSeparator)+or(a.getenv("PATH"), builder.DefaultPath),
		scriptVariable+"="+p.name, transactionVariable+"="+s.ID), nil
}

// runScript runs the script until it and all that it has started have ended.
func (a *app) runScript(ctx context.Context, p *scriptPlan, env []string) (status int, err error) {
	path, err := exec.LookPath(p.argv[0])
	if err != nil {
		return 0, notExecuted(p.argv[0], err)
	}
	attr := &syscall.ProcAttr{Env: dedupeEnv(env), Files: []uintptr{a.std.In.Fd(), a.std.Out.Fd(), a.std.Err.Fd()}}
	if !a.ownsProcesses() {
		// No pid namespace ends what is left: it comes to this process, and the
		// script itself ends with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return 0, fmt.Errorf("becoming the reaper of the script's processes: %w", err)
		}
		attr.Sys = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	pid, err := syscall.ForkExec(path, p.argv, attr)
	if err != nil {
		return 0, notExecuted(p.argv[0], err)
	}
	ended := make(chan struct{})
	go a.endOnSignal(ctx, pid, ended)
	status = reapUntil(pid)
	close(ended)
	// What the script has left behind would work on its containers.
	if !a.ownsProcesses() {
		reaper.EndAll(0)
	} else {
		_ = unix.Kill(-1, unix.SIGKILL)
		for {
			var ws unix.WaitStatus
			if _, err := unix.Wait4(-1, &ws, 0, nil); err != nil && err != unix.EINTR {
				break
			}
		}
	}
	return status, nil
}

// ownsProcesses reports that all other processes of the pid namespace are the
// script's.
func (a *app) ownsProcesses() bool { return a.namespaces.PIDNamespace && os.Getpid() == 1 }

// scriptGrace is how long a script may go on after a signal.
const scriptGrace = 10 * time.Second

// endOnSignal passes an interruption on.
func (a *app) endOnSignal(ctx context.Context, pid int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	target := pid
	if a.ownsProcesses() {
		target = -1
	}
	number := syscall.SIGTERM
	var i *Interrupted
	if errors.As(context.Cause(ctx), &i) {
		number = i.Signal
	}
	// The keys of a terminal reach the script by themselves.
	if number != syscall.SIGINT && number != syscall.SIGQUIT || !a.inForeground() {
		_ = unix.Kill(target, number)
	}
	select {
	case <-ended:
	case <-time.After(scriptGrace):
		_ = unix.Kill(target, unix.SIGKILL)
	}
}

// reapUntil waits for processes, those that were orphaned too, until pid has
// ended, and returns its status as shells tell it.
func reapUntil(pid int) int {
	for {
		var ws unix.WaitStatus
		switch got, err := unix.Wait4(-1, &ws, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return exitError
		case got == pid && ws.Signaled():
			return exitSignal + int(ws.Signal())
		case got == pid && ws.Exited():
			return ws.ExitStatus()
		}
	}
}

// dedupeEnv keeps the last setting of each variable: a shell may take the
// first one.
func dedupeEnv(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}
