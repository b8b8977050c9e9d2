package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/stratabuild/strata/define"
)

// explain adds to an error what on this host is its likely cause, and the
// remedy.
func explain(err error) error {
	if hint := hint(err); hint != "" {
		return fmt.Errorf("namespaces for the build: %w: %s: %w", err, hint, define.ErrUnsupported)
	}
	return fmt.Errorf("namespaces for the build: %w", err)
}

func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the limit of namespaces is reached (as root: sysctl user.max_user_namespaces=28633, and its siblings)"
	case errors.Is(err, syscall.EUSERS):
		return "user namespaces are nested too deeply"
	case errors.Is(err, syscall.EINVAL):
		return "the kernel may be built without user namespaces (CONFIG_USER_NS)"
	case !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES):
		return ""
	case setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "unprivileged user namespaces are switched off (as root: sysctl kernel.unprivileged_userns_clone=1)"
	case setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts user namespaces (as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, " +
			"or an AppArmor profile with userns for this program)"
	case setting("/proc/sys/user/max_user_namespaces") == "0":
		return "user namespaces are switched off (as root: sysctl user.max_user_namespaces=28633)"
	case filtered():
		return "the seccomp profile of the container around forbids them " +
			"(run it with --security-opt seccomp=unconfined, or as root with --isolation chroot)"
	}
	return "a security module, a masked /proc or a chroot around this process may forbid them (run as root instead)"
}

func setting(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// filtered reports a seccomp filter on this process.
func filtered() bool {
	b, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(b), "\nSeccomp:\t2")
}
