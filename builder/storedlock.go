package builder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

const lockSuffix = ".lock"

// deadHolder is how long a lock may outlast the process that took it: a child
// that was being started has it until it executes its program or dies.
const deadHolder = 300 * time.Millisecond

// liveHolder is how long a lock is waited for whose process lives: what lists
// or collects containers looks at each for a moment.
const liveHolder = 50 * time.Millisecond

// containerLock is held by the one process that works on a container: a
// flock(2), which ends with the process.
type containerLock struct{ file *os.File }

// containerDir is the directory of the locks and of what Save is doing.
func (e *Engine) containerDir() (string, error) { return e.store.StateSubdir("containers") }

// lockContainer takes the lock of a container, at once or not at all.
func (e *Engine) lockContainer(ctx context.Context, id, title string) (*containerLock, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := e.containerDir()
	if err != nil {
		return nil, err
	}
	patience := time.Now().Add(deadHolder)
	for {
		f, err := os.OpenFile(filepath.Join(dir, id+lockSuffix), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking container %s: %w", title, store.Explain(dir, err))
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == unix.EINTR:
			f.Close()
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			holder := readHolder(f)
			f.Close()
			if left := time.Until(patience); left > 0 && (isDead(holder) || left > deadHolder-liveHolder) {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			return nil, fmt.Errorf("container %s is in use by process %s: wait until that has ended: %w", title, holder, define.ErrInUse)
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("locking container %s: %w", title, err)
		}
		if !sameInode(f) { // removed with its container meanwhile
			f.Close()
			continue
		}
		_ = f.Truncate(0)
		_, _ = f.WriteAt(strconv.AppendInt(nil, int64(e.opts.pid()), 10), 0)
		return &containerLock{f}, nil
	}
}

func (o *Options) pid() int {
	if o.PID != 0 {
		return o.PID
	}
	return os.Getpid()
}

func sameInode(f *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(a, b)
}

func readHolder(f *os.File) string {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return pid
	}
	return "(unknown)"
}

func isDead(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err == nil && n > 0 && unix.Kill(n, 0) == unix.ESRCH
}

func (l *containerLock) release() error {
	if l == nil || l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	// A child that is just being started has a copy of the descriptor until it
	// executes its program: closing ours alone would not end the lock.
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	return f.Close()
}

// remove ends the lock of a container that is gone.
func (l *containerLock) remove() error {
	if l == nil || l.file == nil {
		return nil
	}
	err := os.Remove(l.file.Name())
	return errors.Join(err, l.release())
}

// newContainerID returns 64 random hex digits, not all of them decimal in the
// first twelve: such a name could be taken for a number.
func newContainerID() string {
	for {
		var b [32]byte
		_, _ = rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}
