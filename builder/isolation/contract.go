package isolation

import (
	"context"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Options describes a step as its user sees it.
type Options struct {
	Args []string
	Env  []string // KEY=value, complete: nothing is added from the host
	Cwd  string   // absolute, inside the root; made by the caller
	UID  uint32
	GID  uint32
	// Groups are the supplementary groups, the primary one included.
	Groups []uint32
	// Terminal asks for a pty as the step's standard three (run -t).
	Terminal bool

	Network  NetworkMode
	Hostname string // "" is a short random one
	// Hosts are extra lines of /etc/hosts, "name:ip".
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
	Source   string   // host path, or
	Tree     *os.File // a detached mount (open_tree(2)); wins over Source
	Target   string   // unsafe, absolute, resolved in the step's root
	ReadOnly bool
	Options  []string // nosuid, nodev, noexec, rprivate ...
}

// Spec is a step's container: the runtime-spec document, and what the
// document can only name but not hold.
type Spec struct {
	specs.Spec
	// Files are small files mounted over the root's, by destination
	// (/etc/resolv.conf, /etc/hosts, /etc/hostname). They are the step's own.
	Files map[string][]byte
	// Trees are the sources of mounts, by destination, that are given by
	// descriptor rather than by path.
	Trees map[string]*os.File
	// Terminal asks for a pty.
	Terminal bool
}

// NewSpec translates o. Invalid input is an error that names the field and
// the form that is wanted.
func NewSpec(o Options) (*Spec, error) { panic("isolation") }

// Targets lists the paths that must exist in the root for s to be mounted,
// each with whether it is a directory.
func (s *Spec) Targets() []Target { panic("isolation") }

// Target is a mount point.
type Target struct {
	Path string
	Dir  bool
}

// Step is one execution.
type Step struct {
	Spec *Spec
	// Root is the step's root: a detached mount, or a directory descriptor.
	Root *os.File
	// Stdin may be nil (empty input). Stdout and Stderr are written to by
	// the step's processes themselves.
	Stdin, Stdout, Stderr *os.File
}

// Driver runs steps. Drivers are safe for concurrent use.
type Driver interface {
	// Name is what --isolation calls it.
	Name() string
	// Available returns nil, or why the driver cannot work here, with the
	// remedy where there is one.
	Available(ctx context.Context) error
	// Run executes the step and returns when its first process has ended and
	// nothing it started is left. A process that ends with another status
	// than zero is an *ExitError; any other error means that the step could
	// not be run. When ctx ends, the step gets SIGTERM, then SIGKILL after
	// ten seconds or at once when ctx's cause is ErrKillNow.
	Run(ctx context.Context, s *Step) error
	// Close ends what the driver keeps ready (a pre-started init).
	Close() error
}

// ExitError says how a step's process ended.
type ExitError struct {
	// Code is the exit status: the process's own, 128+n when it was ended by
	// signal n, 127 when the program was not found, 126 when it could not be
	// executed.
	Code int
	// Signal is the number that ended it, or 0.
	Signal int
	// Reason says more where something is known ("out of memory", "no such
	// file or directory").
	Reason string
}

func (e *ExitError) Error() string {
	switch {
	case e.Reason != "":
		return fmt.Sprintf("exit status %d: %s", e.Code, e.Reason)
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}
