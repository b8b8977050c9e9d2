package runmount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxSlots bounds the directories of one private cache.
const maxSlots = 1024

// lockSlot takes the lock that the sharing wants, and says of which slot.
func lockSlot(ctx context.Context, home *os.File, want Cache, waiting func(string)) (int, *os.File, error) {
	told := func() {
		if waiting != nil {
			waiting(want.ID)
		}
	}
	switch want.Sharing {
	case Private:
		for slot := range maxSlots {
			lock, err := openLock(home, slot)
			if err != nil {
				return 0, nil, err
			}
			if err = flock(lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
				err = present(lock)
			}
			if err == nil {
				return slot, lock, nil
			}
			lock.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return 0, nil, err
			}
		}
		return 0, nil, fmt.Errorf("%d steps use it at the same time, more than it has directories for", maxSlots)
	case Locked:
		lock, err := lockFile(ctx, home, 0, unix.LOCK_EX, told)
		return 0, lock, err
	}
	lock, err := lockFile(ctx, home, 0, unix.LOCK_SH, told)
	return 0, lock, err
}

// lockFile waits for the slot's lock; told is called once if it must.
func lockFile(ctx context.Context, home *os.File, slot, how int, told func()) (*os.File, error) {
	lock, err := openLock(home, slot)
	if err != nil {
		return nil, err
	}
	// flock(2) cannot be interrupted from Go: an attempt every so often leaves
	// nothing behind when the build is.
	wait := time.Millisecond
	for first := true; ; first = false {
		err := flock(lock, how|unix.LOCK_NB)
		if err == nil {
			err = present(lock)
		}
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			lock.Close()
			return nil, err
		}
		if first {
			told()
		}
		select {
		case <-ctx.Done():
			lock.Close()
			return nil, fmt.Errorf("waiting for its lock: %w", context.Cause(ctx))
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

// lockToMake takes the lock of a shared cache whose directory is missing. It
// is errAgain when another has made it meanwhile, who may then have the lock
// for as long as its step runs.
func lockToMake(ctx context.Context, home *os.File, slot int) (*os.File, error) {
	wait := time.Millisecond
	for {
		lock, err := openLock(home, slot)
		if err != nil {
			return nil, err
		}
		if err = flock(lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			err = present(lock)
		}
		if err == nil {
			return lock, nil
		}
		lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		if d, err := openDir(home, strconv.Itoa(slot)); err == nil {
			return nil, errors.Join(errAgain, d.Close())
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for its lock: %w", context.Cause(ctx))
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

func openLock(home *os.File, slot int) (*os.File, error) {
	name := strconv.Itoa(slot) + lockSuffix
	fd, err := unix.Openat(int(home.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ENOENT) {
		return nil, errAgain // the directory was removed
	}
	if err != nil {
		return nil, fmt.Errorf("open its lock: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

const lockSuffix = ".lock"

// present gives errAgain for a lock file that pruning has removed.
func present(lock *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(lock.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink == 0 {
		return errAgain
	}
	return nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
