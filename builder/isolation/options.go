package isolation

import (
	"net/netip"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/cgroup"
)

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
	// KeepGroups leaves the step those of this process in their place.
	KeepGroups bool
	// Terminal asks for a terminal (run -t).
	Terminal *Terminal

	Network NetworkMode // "" is host
	// NetworkNamespace is joined when Network is NetworkJoined. It stays the
	// caller's.
	NetworkNamespace *os.File

	Hostname string // "" is a short random one
	// Hosts are extra lines of /etc/hosts: "name:ip", "name=ip", several
	// names as "a;b:ip", IPv6 addresses with or without brackets. The address
	// host-gateway is HostGateway.
	Hosts []string
	// HostGateway is an address at which the step reaches the host; the zero
	// value says that there is none, but for 127.0.0.1 on the host's network.
	HostGateway netip.Addr
	// NoHosts and NoHostname leave the root's own /etc/hosts and
	// /etc/hostname to the step.
	NoHosts, NoHostname bool
	// DNS, DNSSearch and DNSOptions replace the host's when set; "none" as
	// the only server leaves the root's own /etc/resolv.conf to the step.
	DNS, DNSSearch, DNSOptions []string

	CapAdd, CapDrop []string // "NET_ADMIN" or "CAP_NET_ADMIN", "ALL"
	// Ulimits are "name=soft[:hard]"; hard limits above what this process
	// may give are clamped, and soft ones that are unlimited. Another soft limit
	// is an error then.
	Ulimits []string
	ShmSize int64 // bytes of /dev/shm; 0 is 64 MiB
	// Volumes are bind mounts of the user's.
	Volumes []Volume
	// Devices are device nodes of the host's, or directories of them.
	Devices []Device
	// Namespaces says which namespaces the step shares; the network has a
	// field of its own.
	Namespaces Namespaces
	// IDMap gives the step a user namespace of its own.
	IDMap  IDMap
	Limits Limits
	Security
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
	// NetworkJoined is that of Options.NetworkNamespace.
	NetworkJoined NetworkMode = "joined"
)

// Volume is one bind mount: a trusted host path or an open tree.
type Volume struct {
	Source string   // host path, or
	Tree   *os.File // a detached mount (open_tree(2)); wins over Source
	Target string   // unsafe, absolute, resolved in the step's root
	// ReadOnly covers the mounts below the source too.
	ReadOnly bool
	// Own says that the files of Tree are the builder's own: owners of them are
	// remembered where they cannot be given.
	Own bool
	// Noted says that owners may be remembered of files of Tree, which steps see
	// then: those of images, and what was made for the step.
	Noted bool
	// Mapped says that Tree shows its owners through the step's map already.
	Mapped bool
	// Options are ro, rw, nosuid, suid, nodev, dev, noexec, exec, bind, rbind
	// and the propagation modes. Device nodes do not work unless dev is given.
	// bind leaves out what is mounted below Source. Whatever the propagation,
	// no mount of the step's reaches the host, nor one of the host's the step:
	// shared and rshared make a peer group of the step's own, slave and rslave
	// are those of nobody. z, Z, U, O and others are the builder's to see to,
	// and refused here.
	Options []string
}

// NamespaceMode is "" or "private" (also spelled "container"): the step has
// a namespace of its own; "host": it shares that of this process; or the
// absolute path of a namespace's file, such as /proc/1/ns/ipc, with ns: before
// it or without.
type NamespaceMode string

const (
	// NamespacePrivate is the default.
	NamespacePrivate NamespaceMode = "private"
	// NamespaceHost shares this process's.
	NamespaceHost NamespaceMode = "host"
)

// Namespaces are the modes by type. Of User NewSpec takes "" and "host", where
// steps run in the user namespace of this process, and "private", which with an
// IDMap is another, and without is that of this process, when it is rootless.
// "auto" and its options are for the builder to make a map of.
type Namespaces struct{ PID, IPC, UTS, Cgroup, User NamespaceMode }

// Device is a device node, or a directory of them, that the step may use. It
// is mounted, not made: that works without privileges too, as far as the
// node's mode and owner let this process open it.
type Device struct {
	Source string // host path
	Target string // unsafe, absolute; "" is Source
	// Permissions are "rw" or "rwm", which "" stands for: there is no device
	// cgroup that could enforce less.
	Permissions string
}

// Security is what --security-opt says. The zero value is the default.
type Security struct {
	// SeccompUnconfined switches the filter off.
	SeccompUnconfined bool
	// SeccompProfile is another profile's JSON, in docker's form; empty is
	// the default one.
	SeccompProfile  []byte
	NoNewPrivileges bool
	// AppArmor is a profile that is loaded on the host; "" and "unconfined"
	// change nothing.
	AppArmor string
	// Mask are further paths to hide. Unmask are paths not to hide and not to
	// make read-only, with a shell's wildcards; ALL is all of them.
	Mask, Unmask []string
}

// Limits bound what a step may use of the machine.
type Limits = cgroup.Limits

// Joined are namespaces given by descriptor; see Spec.Joined.
type Joined map[specs.LinuxNamespaceType]*os.File
