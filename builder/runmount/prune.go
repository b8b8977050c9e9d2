package runmount

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/store"
	"golang.org/x/sys/unix"
)

// Pruned is what Prune removed.
type Pruned struct {
	Caches int // directories
	Bytes  int64
}

// Prune removes the cache directories that no step uses and that none has
// used for olderThan; 0 is all of them.
func Prune(ctx context.Context, st *store.Store, olderThan time.Duration) (p Pruned, err error) {
	state, err := openState(st)
	if err != nil {
		return p, err
	}
	defer state.Close()
	names, err := state.Readdirnames(-1)
	if err != nil {
		return p, err
	}
	limit := time.Now().Add(-olderThan)
	var failed []error
	for _, name := range names {
		if err := context.Cause(ctx); err != nil {
			return p, err
		}
		failed = append(failed, p.home(state, name, limit))
	}
	return p, errors.Join(failed...)
}

// home removes the idle slots of one cache, and the rest when none is left.
func (p *Pruned) home(state *os.File, name string, limit time.Time) error {
	home, err := openDir(state, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer home.Close()
	names, err := home.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		slot, err := strconv.Atoi(strings.TrimSuffix(n, lockSuffix))
		if err != nil || !strings.HasSuffix(n, lockSuffix) {
			continue
		}
		if err := p.slot(home, slot, limit); err != nil {
			return err
		}
	}
	err = unix.Unlinkat(int(state.Fd()), name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (p *Pruned) slot(home *os.File, slot int, limit time.Time) error {
	lock, err := openLock(home, slot)
	if errors.Is(err, errAgain) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err = flock(lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = present(lock)
	}
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, errAgain) {
		return nil // in use, or gone
	}
	if err != nil {
		return err
	}
	info, err := lock.Stat()
	if err != nil {
		return err
	}
	if info.ModTime().After(limit) {
		return nil
	}
	name := strconv.Itoa(slot)
	for _, n := range []string{name, name + ".new"} {
		var st unix.Stat_t
		if unix.Fstatat(int(home.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		bytes, err := store.RemoveTree(home, n)
		p.Bytes += bytes
		if err != nil {
			return err
		}
		if n == name {
			p.Caches++
		}
	}
	return unix.Unlinkat(int(home.Fd()), name+lockSuffix, 0)
}
