package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stratabuild/strata/builder/store"
	"golang.org/x/sys/unix"
)

func init() { children["full"] = childFull }

// childFull fills a small file system at every stage of a build and checks
// what is said, and that all space comes back.
func childFull() error {
	dir := os.Getenv("STRATA_TEST_DIR")
	ctx := context.Background()
	for size := 100; size <= 2500; size += 300 {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", size)); err != nil {
			return err
		}
		if err := buildWhenFull(ctx, dir); err != nil {
			return fmt.Errorf("with %d KiB: %w", size, err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}

func buildWhenFull(ctx context.Context, dir string) error {
	expected := func(err error) error {
		if errors.Is(err, unix.ENOSPC) && strings.Contains(err.Error(), dir) {
			return nil
		}
		return fmt.Errorf("the error says too little: %w", err)
	}
	st, err := store.Open(ctx, store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "overlay"})
	if err != nil {
		return expected(err)
	}
	defer st.Raw().Free()
	defer st.Close()
	sp := NewSpace(st)
	w, err := sp.Begin(ctx, nil, BeginOptions{})
	if err != nil {
		return errors.Join(expected(err), sp.Close())
	}
	for n := range 200 { // leaves nothing, or little
		if os.WriteFile(in(w.Root(), fmt.Sprint(n)), make([]byte, 16<<10), 0o644) != nil {
			break
		}
	}
	l, err := w.Freeze(ctx, FreezeOptions{})
	if err == nil {
		_, err = l.Wait(ctx)
	}
	if err != nil {
		err = expected(err)
	}
	return errors.Join(err, sp.Close())
}

func TestFullFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for a small file system")
	}
	dir := t.TempDir()
	cmd, _, errs := child("full", "STRATA_TEST_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, errs)
	}
}
