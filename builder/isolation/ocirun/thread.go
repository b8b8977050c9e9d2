package ocirun

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inPrivateMounts calls f on a thread with a mount namespace of its own, from
// which nothing propagates. Processes started by f are born into it. The
// thread ends with f, and the namespace with the last process in it.
//
// prepare is called before, with the mounts as they are: trees can only be
// cloned from the namespace that they belong to.
func inPrivateMounts(prepare, f func() error) error {
	if err := prepare(); err != nil {
		return err
	}
	done := make(chan error, 1)
	onOwnThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("private mount namespace: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			done <- fmt.Errorf("private mount namespace: %w", err)
			return
		}
		done <- f()
	})
	return <-done
}

// onOwnThread starts f on a thread that ends with it. The process's first
// thread is never used: it could not end, and is what /proc/self shows.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // the thread stays locked and so is thrown away
			return
		}
		// While this goroutine holds the first thread, the next gets another.
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			f()
		}()
		<-started
		runtime.UnlockOSThread()
	}()
}
