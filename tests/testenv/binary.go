package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Tags are the build tags of the project.
const Tags = "containers_image_openpgp,exclude_graphdriver_btrfs"

// BinaryVariable names the environment variable that, when set, holds the
// path of the binary to test: for users who cannot build it, and for a
// released one.
const BinaryVariable = "STRATA_BINARY"

// Strata returns the absolute path of the strata binary to test: what
// $STRATA_BINARY names, else one that is built from this checkout, once a
// process. The test fails when it cannot be built.
func Strata(t testing.TB) string {
	t.Helper()
	path, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Binary is Strata for programs that are no tests.
func Binary() (string, error) { return binary() }

var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(BinaryVariable); path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		if err := unix.Access(abs, unix.X_OK); err != nil {
			return "", fmt.Errorf("$%s: %s cannot be executed: %w", BinaryVariable, abs, err)
		}
		return abs, nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	return build(root)
})

// ModuleRoot returns the directory of go.mod, at or above the working
// directory.
func ModuleRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod at or above %s: run the tests inside the checkout, or set $%s", wd, BinaryVariable)
		}
	}
}

// build makes the binary in the user's cache directory, beside the Go build
// cache: it survives the process, so that the next one links nothing when
// nothing changed. Test processes that run at the same time take turns.
func build(root string) (string, error) {
	dir, err := cacheDir(root)
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	out := filepath.Join(dir, "strata")
	cmd := exec.Command("go", "build", "-tags", Tags, "-buildvcs=false", "-trimpath", "-o", out, "./cmd/strata")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return out, nil
}

func cacheDir(root string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil { // no $HOME
		base = filepath.Join(os.TempDir(), fmt.Sprintf("strata-%d", os.Getuid()))
	}
	sum := sha256.Sum256([]byte(root))
	dir := filepath.Join(base, "strata-test", fmt.Sprintf("%x", sum[:6]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, nil
}
