package isolationtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stratabuild/strata/builder/isolation"
)

var lifeCases = []testCase{
	{name: "background processes end with the step", run: func(e *env) {
		started := time.Now()
		// The pipe's end (see runSpec) shows when the last one is gone.
		e.sh("sleep 300 & (sleep 300 &) ; unset x; (trap '' TERM HUP; sleep 300) & true")
		if d := time.Since(started); d > 4*time.Second {
			e.Errorf("took %v", d)
		}
	}},
	{name: "cancel kills at once when asked", run: func(e *env) {
		ctx, cancel := context.WithCancelCause(e.Context())
		time.AfterFunc(200*time.Millisecond, func() { cancel(isolation.ErrKillNow) })
		started := time.Now()
		r := e.runIn(ctx, NewRoot(e), e.options("trap '' TERM; sleep 300 & wait; sleep 300"), nil)
		if d := time.Since(started); d > 5*time.Second {
			e.Errorf("took %v", d)
		}
		if !errors.Is(r.err, isolation.ErrKillNow) {
			e.Errorf("error %v, want ErrKillNow", r.err)
		}
	}},
	{name: "cancel lets the step end", run: func(e *env) {
		ctx, cancel := context.WithCancel(e.Context())
		root := NewRoot(e)
		go func() {
			for ctx.Err() == nil && !exists(root+"/tmp/ready") {
				time.Sleep(10 * time.Millisecond)
			}
			cancel()
		}()
		r := e.runIn(ctx, root, e.options("trap 'echo bye; exit 5' TERM; echo >/tmp/ready; while :; do sleep 0.05; done"), nil)
		e.equal("output", r.out, "bye")
		if !errors.Is(r.err, context.Canceled) {
			e.Errorf("error %v, want context.Canceled", r.err)
		}
	}},
	{name: "cancel of a step that does not listen", run: func(e *env) {
		ctx, cancel := context.WithCancel(e.Context())
		time.AfterFunc(200*time.Millisecond, cancel)
		started := time.Now()
		r := e.runIn(ctx, NewRoot(e), e.options("sleep 300"), nil)
		if d := time.Since(started); d > 5*time.Second {
			e.Errorf("took %v", d)
		}
		if !errors.Is(r.err, context.Canceled) {
			e.Errorf("error %v, want context.Canceled", r.err)
		}
	}},
	{name: "cancelled before it starts", run: func(e *env) {
		ctx, cancel := context.WithCancel(e.Context())
		cancel()
		r := e.runIn(ctx, NewRoot(e), e.options("echo ran"), nil)
		if !errors.Is(r.err, context.Canceled) || r.out != "" {
			e.Errorf("output %q, error %v", r.out, r.err)
		}
	}},
	{name: "several at once", run: func(e *env) {
		root := NewRoot(e)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				o := e.options(fmt.Sprintf("sleep 0.1; echo %d; exit %d", i, i))
				r := e.runIn(e.Context(), root, o, nil)
				if got := e.code(r); got != i || strings.TrimSpace(r.out) != fmt.Sprint(i) {
					e.Errorf("step %d: exit status %d, output %q", i, got, r.out)
				}
			})
		}
		wg.Wait()
	}},
	{name: "one after the other", run: func(e *env) {
		root := NewRoot(e)
		for i := range 30 {
			o := e.options(fmt.Sprintf("echo %d", i))
			o.Hostname = fmt.Sprintf("h%d", i)
			e.equal("output", e.must(e.runIn(e.Context(), root, o, nil)), fmt.Sprint(i))
		}
	}},
	{name: "IPC objects die with the step", needs: []Feature{IPCNamespace}, run: func(e *env) {
		// CVE-2024-3056.
		before, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil {
			e.Skip(err)
		}
		e.equal("probe", e.must(e.probe("shm", nil)), "")
		e.equal("objects", e.sh("wc -l </proc/sysvipc/shm"), "1")
		after, _ := os.ReadFile("/proc/sysvipc/shm")
		if n := strings.Count(string(after), "\n") - strings.Count(string(before), "\n"); n >= 50 {
			e.Errorf("%d more objects on the host", n)
		}
	}},
	{name: "mounts and children of ours are as before", run: func(e *env) {
		own := filepath.Dir(e.TempDir())
		before := mountsOf(e, own)
		e.sh("true")
		e.equal("mounts", mountsOf(e, own), before)
		// A driver may keep one init ready, which is alive: a zombie is a leak.
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); err == nil && pid > 0 {
			e.Errorf("process %d was not waited for", pid)
		}
	}},
}
