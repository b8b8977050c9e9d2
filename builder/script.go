package builder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// Script is a transaction of several processes: the containers that they
// create with its ID are removed together, by EndScript, or, should the
// process that began it die, by SweepScripts.
type Script struct {
	// ID is for CreateOptions.Script: 32 hex digits.
	ID string
	// Dir is a directory of the script's own, mode 0700, that goes with it.
	Dir string
	// Outer is the ID of the script that this one is a part of, which its
	// containers go to when it ends well; may be "".
	Outer string
	lock  *os.File
}

const scriptLock = ".lock"

func (e *Engine) scriptsDir() (string, error) { return e.store.StateSubdir("scripts") }

// BeginScript begins a transaction. It lasts as long as this process, whether
// or not the engine is closed.
func (e *Engine) BeginScript(ctx context.Context) (*Script, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := e.scriptsDir()
	if err != nil {
		return nil, err
	}
	var b [16]byte
	_, _ = rand.Read(b[:])
	s := &Script{ID: hex.EncodeToString(b[:])}
	s.Dir = filepath.Join(dir, s.ID)
	for s.lock == nil {
		// A sweeper may have removed the file before it was locked.
		if s.lock, err = lockScript(s.Dir+scriptLock, os.O_CREATE); err != nil {
			return nil, fmt.Errorf("beginning the script: %w", store.Explain(dir, err))
		}
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("beginning the script: %w", store.Explain(dir, err)), os.Remove(s.lock.Name()), s.lock.Close())
	}
	return s, nil
}

// lockScript takes a lock file; nil without an error when another process has
// it or has removed it.
func lockScript(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && sameInode(f) {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = nil
	}
	return nil, err
}

// EndScript ends a transaction. With discard its containers are removed, else
// they stay, as any other; the names of them are returned. Processes of the
// script must have ended.
func (e *Engine) EndScript(ctx context.Context, s *Script, discard bool) (names []string, err error) {
	end := e.discardContainer
	if !discard {
		end = func(ctx context.Context, info ContainerInfo) error { return e.releaseContainer(ctx, info, s.Outer) }
	}
	names, err = e.endContainers(ctx, func(id string) bool { return id == s.ID }, end)
	if err != nil {
		return names, err // the next sweep tries again
	}
	return names, errors.Join(os.RemoveAll(s.Dir), os.Remove(s.lock.Name()), s.lock.Close())
}

// SweepScripts removes what scripts have left whose process has died, and
// returns the names of the containers.
func (e *Engine) SweepScripts(ctx context.Context) (names []string, err error) {
	dir, err := e.scriptsDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for scripts that died: %w", err)
	}
	alive := map[string]bool{}
	var dead []*os.File
	defer func() {
		for _, f := range dead {
			f.Close()
		}
	}()
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), scriptLock)
		if !ok {
			continue
		}
		f, err := lockScript(filepath.Join(dir, entry.Name()), 0)
		if err != nil {
			return nil, fmt.Errorf("looking for scripts that died: %w", err)
		}
		if alive[id] = f == nil; f != nil {
			dead = append(dead, f)
		}
	}
	// Containers may be of scripts that have begun meanwhile, and live.
	isDead := func(id string) bool {
		if id == "" || alive[id] {
			return false
		}
		_, err := os.Lstat(filepath.Join(dir, id+scriptLock))
		for _, f := range dead {
			if f.Name() == filepath.Join(dir, id+scriptLock) {
				return true
			}
		}
		return errors.Is(err, fs.ErrNotExist)
	}
	names, err = e.endContainers(ctx, isDead, e.discardContainer)
	if err != nil {
		return names, err
	}
	for _, f := range dead {
		err = errors.Join(err, os.RemoveAll(strings.TrimSuffix(f.Name(), scriptLock)), os.Remove(f.Name()))
	}
	return names, err
}

// endContainers does end to the containers of scripts.
func (e *Engine) endContainers(ctx context.Context, of func(script string) bool, end func(context.Context, ContainerInfo) error) (names []string, err error) {
	list, err := e.Containers(ctx)
	if err != nil {
		return nil, err
	}
	for _, info := range list {
		if !info.Ours || !of(info.Script) {
			continue
		}
		if endErr := end(ctx, info); endErr != nil {
			err = errors.Join(err, endErr)
			continue
		}
		names = append(names, info.Name)
	}
	return names, err
}

func (e *Engine) discardContainer(ctx context.Context, info ContainerInfo) error {
	_, err := e.RemoveContainer(ctx, info.ID)
	if errors.Is(err, define.ErrNotFound) {
		err = nil
	}
	return err
}

func (e *Engine) releaseContainer(ctx context.Context, info ContainerInfo, outer string) error {
	c, err := e.OpenContainer(ctx, info.ID)
	if err != nil {
		return err
	}
	c.stored.script = outer
	return errors.Join(c.Save(ctx), c.Close())
}
