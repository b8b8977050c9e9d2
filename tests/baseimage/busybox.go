package baseimage

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// BusyboxVariable names the environment variable that, when set, holds the
// path of the busybox to use.
const BusyboxVariable = "STRATA_BUSYBOX"

var busyboxPaths = []string{
	"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/bin/busybox-static", "/sbin/busybox.static",
}

// Busybox returns the path of a statically linked busybox: $STRATA_BUSYBOX,
// one that is installed, or else Debian's, fetched with "apt-get download"
// (no root needed) and unpacked below scratch.
func Busybox(ctx context.Context, scratch string) (string, error) {
	if path := os.Getenv(BusyboxVariable); path != "" {
		if err := checkStatic(path); err != nil {
			return "", fmt.Errorf("$%s: %w", BusyboxVariable, err)
		}
		return path, nil
	}
	var found error
	for _, path := range busyboxPaths {
		err := checkStatic(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			found = err
		}
	}
	path, err := download(ctx, scratch)
	if err != nil {
		return "", fmt.Errorf("no statically linked busybox: install the package busybox-static, or name one in $%s: %w",
			BusyboxVariable, errors.Join(found, err))
	}
	return path, nil
}

// checkStatic reports whether the file is a program that needs no loader.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked", path)
		}
	}
	return nil
}

// download fetches and unpacks Debian's package.
func download(ctx context.Context, scratch string) (string, error) {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(scratch, "busybox-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, apt, "download", "busybox-static")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download busybox-static: %w: %s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "busybox-static_*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download busybox-static left %d packages", len(debs))
	}
	return unpackBusybox(debs[0], filepath.Join(dir, "busybox"))
}

// unpackBusybox takes the program out of a package.
func unpackBusybox(deb, dest string) (string, error) {
	f, err := os.Open(deb)
	if err != nil {
		return "", err
	}
	defer f.Close()
	program, err := debFile(f, "bin/busybox", "usr/bin/busybox")
	if err != nil {
		return "", fmt.Errorf("%s: %w", deb, err)
	}
	out, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, io.LimitReader(program, 64<<20))
	if err := errors.Join(err, out.Close()); err != nil {
		return "", err
	}
	return dest, checkStatic(dest)
}
