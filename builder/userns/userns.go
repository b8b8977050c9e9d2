package userns

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options says what the command needs.
type Options struct {
	// PIDNamespace: the command runs steps; see the package's comment.
	PIDNamespace bool
	// Ended, if any, is called in the front process when the worker has ended.
	Ended func()
}

// Info says what the process lives in.
type Info struct {
	// Worker: there is a front process.
	Worker bool
	// Front is the front process's number, in its pid namespace; 0 without
	// one.
	Front int
	// PIDNamespace: this process is number 1 of its own pid namespace.
	PIDNamespace bool
	// Rootless: in a user namespace other than the machine's first.
	Rootless bool
	// SingleID: the user namespace maps one id only.
	SingleID bool
	// NoNamespaces: the process is root, but may not make namespaces.
	NoNamespaces bool
	// UID and GID are the user's ids outside of the user namespace.
	UID, GID int
	// Notes are sentences for the user about what was missing and what was
	// used instead, with the remedy.
	Notes []string
}

var current atomic.Pointer[Info]

// Current returns what Enter returned last. Before Enter it looks at the
// process as it is.
func Current() Info {
	if i := current.Load(); i != nil {
		return *i
	}
	return look()
}

// Enter does what the package's comment says. It must be called before the
// program opens files, starts goroutines that do, or looks at its ids. In the
// front process it returns only an error, which names the cause and the
// remedy.
func Enter(o Options) (*Info, error) {
	if mark, isWorker := workerLink(); isWorker {
		info := becomeWorker(mark)
		current.Store(&info)
		return &info, nil
	}
	notes := settleEnvironment()
	var info Info
	switch {
	case os.Geteuid() == 0 && hasSysAdmin():
		info = look()
		if !o.PIDNamespace {
			drop()
		} else {
			err := front(rootPlans(), notes, o.Ended)
			info.Notes = append(info.Notes, "steps run without an outer pid namespace: "+err.Error())
		}
	case os.Geteuid() == 0:
		// In a container that took CAP_SYS_ADMIN away.
		err := front(nestedPlans(o), notes, o.Ended)
		info = look()
		info.NoNamespaces = true
		info.Notes = append(info.Notes, fmt.Sprintf("namespaces cannot be made here, so steps are isolated by chroot only: %v", err))
	default:
		return nil, front(userPlans(o), notes, o.Ended)
	}
	current.Store(&info)
	return &info, nil
}

// look describes the process from what the kernel says.
func look() Info {
	info := Info{UID: os.Getuid(), GID: os.Getgid()}
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return info
	}
	text := strings.Join(strings.Fields(string(m)), " ")
	if text == "0 0 4294967295" && firstNamespace() {
		return info
	}
	info.Rootless = true
	f := strings.Fields(text)
	info.SingleID = len(f) == 3 && f[2] == "1"
	if info.UID != 0 {
		return info // a user here, whoever it is outside
	}
	info.UID = outside("_CONTAINERS_ROOTLESS_UID", "/proc/self/uid_map", os.Getuid())
	info.GID = outside("_CONTAINERS_ROOTLESS_GID", "/proc/self/gid_map", os.Getgid())
	return info
}

// firstNamespace reports the machine's first user namespace, whose number is
// fixed (PROC_USER_INIT_INO): a map of all ids to themselves may be another's.
func firstNamespace() bool {
	link, err := os.Readlink("/proc/self/ns/user")
	return err != nil || link == "user:[4026531837]"
}

// outside returns the id that this user namespace's parent knows us by.
func outside(variable, file string, id int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n >= 0 {
		return n
	}
	m, err := os.ReadFile(file)
	if err != nil {
		return id
	}
	f := strings.Fields(string(m))
	for ; len(f) >= 3; f = f[3:] {
		in, err1 := strconv.Atoi(f[0])
		out, err2 := strconv.Atoi(f[1])
		size, err3 := strconv.Atoi(f[2])
		if err := errors.Join(err1, err2, err3); err == nil && id >= in && id < in+size {
			return out + id - in
		}
	}
	return id
}

// MayMakeNamespaces reports whether this process has CAP_SYS_ADMIN, and so may
// make namespaces other than user namespaces; for who has called Enter.
func MayMakeNamespaces() bool { return hasSysAdmin() }

// hasSysAdmin reports CAP_SYS_ADMIN in the effective set.
var hasSysAdmin = sync.OnceValue(func() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
})
