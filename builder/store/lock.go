package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock takes the lock under which layers are adopted. It excludes other
// goroutines and other strata processes on the same graph root, not other
// tools. When ctx ends first, the error names the process that has the lock.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the store's adoption lock: %w", ctx.Err())
	}
	ok := false
	defer func() {
		if !ok {
			<-s.turn
		}
	}()
	if s.lockFile == nil {
		state, err := s.StateDir()
		if err != nil {
			return nil, err
		}
		path := filepath.Join(state, "adopt.lock")
		s.lockFile, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking the store: %w", Explain(path, err))
		}
	}
	if err := s.flock(ctx); err != nil {
		return nil, err
	}
	// Who holds it, for the message of one that waits; best effort.
	_ = s.lockFile.Truncate(0)
	_, _ = s.lockFile.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	ok = true
	f := s.lockFile
	return func() {
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		<-s.turn
	}, nil
}

// flock locks s.lockFile. flock(2) cannot be interrupted from Go, so one that
// must wait does so on a goroutine; if ctx ends first, the descriptor is left
// to that goroutine, and the next Lock opens a new one.
func (s *Store) flock(ctx context.Context) error {
	fd := int(s.lockFile.Fd())
	err := flockRetry(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("locking %s: %w", s.lockFile.Name(), err)
	}
	got := make(chan error, 1)
	f := s.lockFile
	go func() { got <- flockRetry(fd, unix.LOCK_EX) }()
	select {
	case err := <-got:
		if err != nil {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		return nil
	case <-ctx.Done():
		s.lockFile = nil
		go func() { <-got; f.Close() }()
		return fmt.Errorf("waiting for %s, held by process %s: %w", f.Name(), holder(f), ctx.Err())
	}
}

func flockRetry(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return err
		}
	}
}

// holder reads who has written itself into a lock file.
func holder(f *os.File) string {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return pid
	}
	return "(unknown)"
}
