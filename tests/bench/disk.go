package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/tests/testenv"
	"golang.org/x/sys/unix"
)

// freshDisk makes an ext4 file system of its own in a sparse file below dir,
// and mounts it. On a file system where many files were deleted lately, all
// that is measured is the search for inodes (see the package's comment).
// testenv.RemoveStore(dir) unmounts and removes it.
func freshDisk(ctx context.Context, dir string, gib int) (string, error) {
	if err := testenv.Root(); err != nil {
		return "", err
	}
	image, point := filepath.Join(dir, "img"), filepath.Join(dir, "fs")
	f, err := os.Create(image)
	if err != nil {
		return "", err
	}
	err = f.Truncate(int64(gib) << 30)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	// All tables are written now, or the kernel would do it meanwhile.
	if _, err := output(ctx, exec.Command("mkfs.ext4", "-q", "-F", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)); err != nil {
		return "", fmt.Errorf("a fresh file system: %w", err)
	}
	if err := os.Mkdir(point, 0o755); err != nil {
		return "", err
	}
	if _, err := output(ctx, exec.Command("mount", "-o", "loop", image, point)); err != nil {
		return "", fmt.Errorf("a fresh file system: %w", err)
	}
	return point, nil
}

// freshWork gives a row a disk of its own, where root asked for disks, in
// place of the one before.
func (s *session) freshWork(ctx context.Context) error {
	if s.o.disk == 0 {
		return nil
	}
	if s.work != s.top {
		if err := testenv.RemoveStore(filepath.Dir(s.work)); err != nil {
			return err
		}
	}
	s.disks++
	dir := filepath.Join(s.top, fmt.Sprintf("d%d", s.disks))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	point, err := freshDisk(ctx, dir, s.o.disk)
	if err == nil {
		s.work = point
	}
	return err
}

// written returns the bytes that were written to the disk below dir since it
// exists, or -1 where the disk is not one of ours: on others, everybody's
// writes would count. (Linux, Documentation/block/stat.rst: field 7, sectors.)
func written(dir string) int64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return -1
	}
	name := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat(filepath.Join(name, "loop")); err != nil {
		return -1
	}
	b, err := os.ReadFile(filepath.Join(name, "stat"))
	f := strings.Fields(string(b))
	if err != nil || len(f) < 7 {
		return -1
	}
	sectors, err := strconv.ParseInt(f[6], 10, 64)
	if err != nil {
		return -1
	}
	return sectors * 512
}
