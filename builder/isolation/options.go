package isolation

import "os"

// Options describes a step as its user sees it.
type Options struct {
	Args []string
	// Env is complete: nothing is added from the host. Entries have the form
	// KEY=value; one without a name or without "=" sets nothing.
	Env []string
	Cwd string // absolute, inside the root; made by the caller; "" is "/"
	UID uint32
	GID uint32
	// Groups are the supplementary groups, the primary one included.
	Groups []uint32
	// Terminal asks for a pty as the step's standard three (run -t).
	Terminal bool

	Network  NetworkMode // "" is host
	Hostname string      // "" is a short random one
	// Hosts are extra lines of /etc/hosts: "name:ip", "name=ip", several
	// names as "a;b:ip", IPv6 addresses with or without brackets.
	Hosts []string
	// DNS, DNSSearch and DNSOptions replace the host's when set.
	DNS, DNSSearch, DNSOptions []string

	CapAdd, CapDrop []string // "NET_ADMIN" or "CAP_NET_ADMIN", "ALL"
	// Ulimits are "name=soft[:hard]"; hard limits above what this process
	// may give are clamped.
	Ulimits []string
	ShmSize int64 // bytes of /dev/shm; 0 is 64 MiB
	// Volumes are bind mounts of the user's.
	Volumes []Volume
	// SeccompUnconfined switches the filter off.
	SeccompUnconfined bool
	NoNewPrivileges   bool
	// Rootless says that the process is in a user namespace of its own;
	// SingleID that it maps one id only.
	Rootless, SingleID bool
}

// NetworkMode is how a step reaches the network.
type NetworkMode string

const (
	// NetworkHost shares the host's network namespace.
	NetworkHost NetworkMode = "host"
	// NetworkNone gives a namespace with a loopback device only.
	NetworkNone NetworkMode = "none"
)

// Volume is one bind mount: a trusted host path or an open tree.
type Volume struct {
	Source string   // host path, or
	Tree   *os.File // a detached mount (open_tree(2)); wins over Source
	Target string   // unsafe, absolute, resolved in the step's root
	// ReadOnly covers the mounts below the source too.
	ReadOnly bool
	// Options are ro, rw, nosuid, suid, nodev, dev, noexec, exec, bind,
	// rbind, private, rprivate, z and Z. Device nodes do not work unless dev
	// is given. z and Z do nothing where SELinux is off and are refused where
	// it is on; U, O and the other propagation modes are refused.
	Options []string
}
