package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Condition returns nil when the machine can do something, else the reason
// why it cannot. Answers are found out once a process.
type Condition func() error

// Require skips the test, with the reason, unless all conditions hold.
func Require(t testing.TB, conditions ...Condition) {
	t.Helper()
	for _, c := range conditions {
		if err := c(); err != nil {
			t.Skip(err)
		}
	}
}

// Named returns the condition that scripts call by that name: root, userns,
// overlay, newuidmap, users, binfmt, limits, apparmor, scope, or the name of a program.
func Named(name string) Condition {
	switch name {
	case "root":
		return Root
	case "userns":
		return UserNamespaces
	case "mounts":
		return Mounts
	case "overlay":
		return Overlay
	case "newuidmap":
		return Newuidmap
	case "users":
		return Users
	case "binfmt":
		return Binfmt
	case "limits":
		return Limits
	case "apparmor":
		return AppArmor
	case "scope":
		return Scope
	case "idmap":
		return IDMap
	case "runc", "crun":
		return Runtime(name)
	}
	return Tool(name)
}

// Root: the process is root, outside of any user namespace of its own.
var Root = Condition(sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	if err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" {
		return errors.New("needs root outside of a user namespace")
	}
	return nil
}))

// Unprivileged: the process is not root.
var Unprivileged = Condition(func() error {
	if os.Geteuid() == 0 {
		return errors.New("needs a user who is not root")
	}
	return nil
})

// UserNamespaces: this user can make a user namespace with one id, and mount
// in it.
var UserNamespaces = Condition(sync.OnceValue(func() error {
	return try("no user namespaces here", "unshare", "--user", "--map-root-user", "--mount", "true")
}))

// Mounts: this user can have a mount namespace, of its own or in a user
// namespace. Without one steps have no mounts, no /proc, and no namespaces.
var Mounts = Condition(sync.OnceValue(func() error {
	if try("no mount namespaces here", "unshare", "--mount", "true") == nil {
		return nil
	}
	return UserNamespaces()
}))

// HasUserNamespaces reports UserNamespaces.
func HasUserNamespaces() bool { return UserNamespaces() == nil }

// Binfmt: a user namespace can have a binfmt_misc of its own (Linux 6.7), in
// which tests may register emulators.
var Binfmt = Condition(sync.OnceValue(func() error {
	return try("no binfmt_misc in user namespaces here", "unshare", "--user", "--map-root-user", "--mount",
		"mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc")
}))

// Overlay: overlay can be mounted on the temporary directory's file system,
// by root directly, by others in a user namespace.
var Overlay = Condition(sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "testenv-overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	unshare := []string{"unshare", "--mount"}
	options := "lowerdir=lower,upperdir=upper,workdir=work"
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
		options += ",userxattr"
	}
	// The work directory gets a directory of mode 0 that belongs to whoever
	// mounts; it goes away with rm inside.
	script := fmt.Sprintf("cd %q && mount -t overlay overlay -o %s merged && echo x >merged/file && umount merged && rm -rf work upper", dir, options)
	return try("no overlay mounts here", append(unshare, "sh", "-c", script)...)
}))

// Newuidmap: newuidmap and newgidmap can give a user namespace of this user
// a range of ids.
var Newuidmap = Condition(sync.OnceValue(func() error {
	out, err := inMappedNamespace("true")
	if err != nil {
		return fmt.Errorf("no id ranges from newuidmap here: %w: %s", err, firstLine(out))
	}
	return nil
}))

// Users: steps can be other users than root, with the ids themselves or, with
// one id, by being told.
var Users = Condition(sync.OnceValue(func() error {
	if Root() == nil || Newuidmap() == nil {
		return nil
	}
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !strings.Contains(string(b), "user_notif") {
		return errors.New("one id only, and no seccomp notifications")
	}
	return Mounts()
}))

// HasNewuidmap reports Newuidmap.
func HasNewuidmap() bool { return Newuidmap() == nil }

var tools sync.Map // name -> func() error

// Tool: a program is installed and starts (it is asked for its version).
func Tool(name string) Condition {
	f, _ := tools.LoadOrStore(name, sync.OnceValue(func() error {
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("needs %s, which is not installed", name)
		}
		return try(name+" does not start", path, "--version")
	}))
	return f.(func() error)
}

var runtimes sync.Map // name -> func() error

// Runtime: an OCI runtime (runc, crun) is installed and runs a container
// here, with a busybox as its root file system. Some refuse hosts on which
// others work (crun: cgroup v1 and v2 together).
func Runtime(name string) Condition {
	f, _ := runtimes.LoadOrStore(name, sync.OnceValue(func() error {
		if err := Tool(name)(); err != nil {
			return err
		}
		return tryRuntime(name)
	}))
	return f.(func() error)
}

// try runs a command and makes its failure a reason.
func try(reason string, args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s: %w: %s", reason, args[0], err, firstLine(out))
	}
	return nil
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
