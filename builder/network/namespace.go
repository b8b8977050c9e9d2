package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// onOwnThread calls f on a thread that ends with it, so that f may change the
// thread's namespaces. The process's first thread is never used: it could not
// end, and is what /proc/self shows.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f() // the thread stays locked and so is thrown away
			return
		}
		// While this goroutine holds the first thread, the next gets another.
		finished := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			done <- f()
			close(finished)
		}()
		<-finished
		runtime.UnlockOSThread()
	}()
	return <-done
}

// unshare gives the calling thread a new network namespace and returns it.
func unshare() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		why := "network namespaces need CAP_SYS_ADMIN or a user namespace"
		switch {
		case errors.Is(err, unix.ENOSPC):
			why = "raise the limit with sysctl user.max_net_namespaces"
		case errors.Is(err, unix.EINVAL):
			why = "the kernel is built without CONFIG_NET_NS"
		}
		return nil, fmt.Errorf("new network namespace: %w; %s: %w", err, why, define.ErrUnsupported)
	}
	return threadNamespace()
}

// threadNamespace opens the network namespace that the calling thread is in.
func threadNamespace() (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, fmt.Errorf("open the thread's network namespace: %w", err)
	}
	return f, nil
}
